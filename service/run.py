"""The bookkeeping of one request."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from service.engine import Trace
from service.spans import span


class Run:
    """What is known so far of one request, and how long its stages took.

    What passes between two stages counts to the later one, so that all of them are the total.
    """

    def __init__(self, *, traced: bool = False) -> None:
        self.unknown = 0
        self.used = 0
        self.eligible = 0
        self.seen: int | None = 0
        self.trace = Trace() if traced else None
        self._start = self._last = perf_counter()
        self._ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Around a stage, whether or not it succeeds; in a trace it is a span."""
        with span(name):
            try:
                yield
            finally:
                now = perf_counter()
                self._ms[name] = round((now - self._last) * 1000, 3)
                self._last = now

    def timing_ms(self) -> dict[str, float]:
        """Milliseconds per stage that was reached, in order, and `total`."""
        return {**self._ms, "total": round((self._last - self._start) * 1000, 3)}
