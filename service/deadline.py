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

_FORGOTTEN_S = 1.0


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


class Pace:
    """What the engine manages these days, for searches that have to be done in time.

    One is started only where both hold:
    - The median of the latest search times is less than what is left. The median, because a
      search that is given up half-way has cost its share of the engine, and one that is not
      started its answer: at even odds it is worth starting. Given up counts as long as it was
      waited for. Where nothing was seen for a second, one may try, and what it finds replaces it.
    - No more are under way than were done in time before: each that is adds to this limit, each
      that is given up takes a tenth of it (additive increase, multiplicative decrease: Chiu and
      Jain, 1989). Else those that are too many would make all of them late.
    """

    def __init__(self) -> None:
        self._limit = 16.0
        self._running = 0
        self._seen: deque[tuple[float, float]] = deque(maxlen=64)
        self._tried = 0.0

    def fits(self, deadline: Deadline) -> bool:
        """Whether a search that starts now will more likely than not be done in time."""
        if deadline.left is None:
            return True
        if self._running and self._running >= int(self._limit):
            return False
        if deadline.left > self.expected():
            return True
        now = time.monotonic()
        if now - self._tried < _FORGOTTEN_S:
            return False
        self._tried = now
        return deadline.left > 0

    def expected(self) -> float:
        """Seconds that a search takes; 0 where nothing is known."""
        return median(seconds for _, seconds in self._seen) if self._seen else 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Around a search; one that fails says nothing."""
        start, together = time.monotonic(), self._running + 1
        self._running = together
        try:
            yield
        except DeadlinePassed:
            self._limit = max(1.0, self._limit * 0.9)
            self._took(start)
            raise
        else:
            if 2 * together >= self._limit:  # fewer tell nothing of more
                self._limit += 1 / self._limit
            self._took(start)
        finally:
            self._running -= 1

    def _took(self, start: float) -> None:
        now = time.monotonic()
        while self._seen and self._seen[0][0] < now - _FORGOTTEN_S:
            self._seen.popleft()
        self._seen.append((now, now - start))
        self._tried = now
