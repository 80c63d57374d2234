"""How long an answer may take, and whether a search would still be done by then."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import TypeVar

from service.errors import DeadlinePassed

T = TypeVar("T")

_OBSERVED = 64
_FORGOTTEN_S = 5.0


class Deadline:
    """A moment, `ms` milliseconds from now; 0 or less is none at all."""

    def __init__(self, ms: float) -> None:
        self.at = time.monotonic() + ms / 1000 if ms > 0 else None

    @property
    def left(self) -> float | None:
        """Seconds that are left, 0 where there are none; None without a deadline."""
        return None if self.at is None else max(0.0, self.at - time.monotonic())

    async def wait(self, work: Awaitable[T]) -> T:
        """The outcome of `work`; cancels it and raises `DeadlinePassed` when time is up."""
        try:
            async with asyncio.timeout(self.left) as limit:
                return await work
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DeadlinePassed("the deadline passed") from error


class SearchTimes:
    """What a search takes these days: the median of the latest ones.

    The median, because a search that is given up half-way has cost its share of the engine, and
    one that is not started its answer: at even odds it is worth starting. A search that was given
    up took longer than it was waited for, and counts as that long. Observations are forgotten
    after five seconds, so that an engine that has recovered is found out about.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque(maxlen=_OBSERVED)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Around a search: takes note of its time, unless it failed."""
        start = time.monotonic()
        try:
            yield
        except DeadlinePassed:
            self.took(time.monotonic() - start)
            raise
        self.took(time.monotonic() - start)

    def took(self, seconds: float) -> None:
        self._seen.append((time.monotonic(), seconds))

    def expected(self) -> float:
        """Seconds; 0 where nothing is known."""
        forgotten = time.monotonic() - _FORGOTTEN_S
        while self._seen and self._seen[0][0] < forgotten:
            self._seen.popleft()
        return median(seconds for _, seconds in self._seen) if self._seen else 0.0

    def fits(self, deadline: Deadline) -> bool:
        """Whether a search that starts now will more likely than not be done in time."""
        return deadline.left is None or deadline.left > self.expected()
