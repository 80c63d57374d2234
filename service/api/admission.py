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
    def place(self) -> Iterator[None]:
        """Holds one place; raises `Overloaded` at once where none is free."""
        if self.in_flight >= self._limit:
            raise Overloaded(f"{self._limit} recommendations are in flight")
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
