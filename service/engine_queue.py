"""The queue in front of the engine: how long it is, and who may still join it. No HTTP.

When a search that joins would be done follows from how many are under way with it, and from the
rate at which searches have lately ended (Little's law). The queue is full where that would be later
than a limit, so that who is let in gets its answer in about that time however many come, and who
is not learns so at once. The rate counts only time in which there was something to do: it is what
the engine manages, not what is asked of it.

Callers share a full queue: one that holds less than its part still gets in, and the others get
nothing more until they are down to theirs.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import Overloaded

_MEMORY_S = 1.0
"""Busy time after which what was seen counts for a third."""
_LEAST = 2
"""Searches that may always be under way: an engine that never saw two at once would have no
batches, and its rate would stay that of single searches."""


class EngineQueue:
    """The searches of one process, by whichever engine. For one event loop.

    `max_wait_ms` is how long a search may take, from when it joins until it is done; 0: any time.
    """

    def __init__(self, max_wait_ms: int = 0) -> None:
        self._max_wait = max_wait_ms / 1000 or math.inf
        self._of: Counter[str] = Counter()
        self._under_way = 0
        self._done = self._busy = 0.0
        self._looked = 0.0

    @property
    def under_way(self) -> int:
        """Searches that run or wait."""
        return self._under_way

    @property
    def wait(self) -> float:
        """Seconds that those under way would take; 0 where nothing is known."""
        self._look()
        return self._under_way * self._busy / self._done if self._done else 0.0

    @property
    def limit(self) -> float:
        """How many may be under way, the last one included; infinite where nothing is known, or
        there is no limit."""
        self._look()
        return max(_LEAST, self._max_wait * self._done / self._busy) if self._done else math.inf

    def full_for(self, caller: str) -> bool:
        """Whether this caller may not join now."""
        limit, own = self.limit, self._of[caller]
        return self._under_way + 1 > limit and own + 1 > limit / (len(self._of) + (own == 0))

    def check(self, caller: str) -> None:
        """Raises `Overloaded` where the queue is full for this caller."""
        if self.full_for(caller):
            wait = self.wait
            raise Overloaded(
                f"{self._under_way} searches are ahead, which take {wait:.2f} s",
                retry_after=max(1, math.ceil(min(wait, self._max_wait))),
            )

    @contextmanager
    def search(self, caller: str) -> Iterator[None]:
        """Around a search. One that fails, or is given up, says nothing of the rate."""
        self._look()
        self._under_way += 1
        self._of[caller] += 1
        try:
            yield
            self._look()
            self._done += 1
        finally:
            self._look()
            self._under_way -= 1
            self._of[caller] -= 1
            if not self._of[caller]:
                del self._of[caller]

    def _look(self) -> None:
        """Lets the time since the last look count."""
        now = time.monotonic()
        if self._under_way:
            kept = math.exp((self._looked - now) / _MEMORY_S)
            self._done *= kept
            self._busy = self._busy * kept + _MEMORY_S * (1 - kept)
        self._looked = now
