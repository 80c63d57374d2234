"""The queue in front of the engine: how long it is, and who may still join it. No HTTP.

When a search that joins would be done follows from how many are under way with it, and from the
rate at which searches have lately ended (Little's law). The queue is full where that would be later
than a limit, so that who is let in gets its answer in about that time however many come, and who
is not learns so at once.

The rate is that of the time until the last search ended. What has passed since tells nothing of it,
for an engine ends a whole batch at once; unless it is longer than anybody may wait. Nor does time
in which there was nothing to do: the rate is what the engine manages, not what is asked of it.

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
"""Busy time after which what was seen counts for a third; but half of it is kept whatever the time
from one end to the next, or an engine of slow batches would be judged by parts of one."""
_LEAST_KEPT = 0.5
_STANDS_STILL_S = 1.0
"""An engine that ends nothing for so long, and for as long as one may wait, stands still."""
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
        # Ended searches and the seconds that the engine was busy with them, earlier ones less.
        self._ended = self._busy = 0.0
        self._since = 0.0

    @property
    def under_way(self) -> int:
        """Searches that run or wait."""
        return self._under_way

    @property
    def wait(self) -> float:
        """Seconds that those under way would take; at least as many as nothing has ended for."""
        expected = self._under_way * self._busy / self._ended if self._ended else 0.0
        return max(expected, self._still)

    @property
    def limit(self) -> float:
        """How many may be under way, the last one included; infinite where nothing is known, or
        there is no limit."""
        if self._still > max(self._max_wait, _STANDS_STILL_S):
            return _LEAST
        return max(_LEAST, self._max_wait * self._ended / self._busy) if self._busy else math.inf

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
        if not self._under_way:
            self._since = time.monotonic()
        self._under_way += 1
        self._of[caller] += 1
        try:
            yield
            self._count()
        finally:
            self._under_way -= 1
            self._of[caller] -= 1
            if not self._of[caller]:
                del self._of[caller]

    @property
    def _still(self) -> float:
        """Seconds for which the engine has had something to do and has ended nothing."""
        return time.monotonic() - self._since if self._under_way else 0.0

    def _count(self) -> None:
        now = time.monotonic()
        took, self._since = now - self._since, now
        kept = max(math.exp(-took / _MEMORY_S), _LEAST_KEPT)
        self._ended = self._ended * kept + 1
        self._busy = self._busy * kept + took
