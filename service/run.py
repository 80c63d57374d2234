"""The bookkeeping of one request."""

from time import perf_counter


class Run:
    """What is known so far of one request, and how long its stages took."""

    def __init__(self) -> None:
        self.unknown = 0
        self.used = 0
        self.eligible = 0
        self.seen: int | None = 0
        self._start = self._last = perf_counter()
        self._ms: dict[str, float] = {}

    def done(self, stage: str) -> None:
        now = perf_counter()
        self._ms[stage] = round((now - self._last) * 1000, 3)
        self._last = now

    def timing_ms(self) -> dict[str, float]:
        return {**self._ms, "total": round((self._last - self._start) * 1000, 3)}
