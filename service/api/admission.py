"""Refuses work instead of queueing it without bound."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import Overloaded


class Admission:
    """Admits up to `limit` at once. For one event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.in_flight = 0

    @contextmanager
    def place(self, count: int = 1) -> Iterator[None]:
        """Holds `count` places; raises `Overloaded` at once where fewer are free."""
        if self.in_flight + count > self._limit:
            raise Overloaded(f"{self.in_flight} of {self._limit} recommendations are in flight")
        self.in_flight += count
        try:
            yield
        finally:
            self.in_flight -= count
