"""Threads of users at work while something breaks, and what became of the events they sent."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import httpx

_AT_ONCE = 500


class AtWork:
    """Threads that work from `begin` to the end of `with`; each looks at `over`."""

    def __init__(self, threads: int) -> None:
        self.over = threading.Event()
        self._pool = ThreadPoolExecutor(threads)
        self._threads: list[Future[None]] = []

    def begin(self, work: Iterable[Callable[[], None]]) -> None:
        """Each on a thread of its own."""
        self._threads = [self._pool.submit(one) for one in work]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.over.set()
        self._pool.shutdown()
        if error is None:
            self.check()

    def check(self) -> None:
        """Raises what any thread found wrong so far."""
        for thread in self._threads:
            if thread.done():
                thread.result()

    def stop(self) -> None:
        """Ends the work; raises what any thread found wrong."""
        self.over.set()
        for thread in self._threads:
            thread.result()

    def wait(self, seconds: float) -> None:
        """Lets them work; raises what any of them found wrong."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, 0.1))


def missing(client: httpx.Client, acknowledged: Sequence[dict[str, Any]]) -> int:
    """How many acknowledged events are not in the histories of their users; none is there twice."""
    kept: set[tuple[str, str]] = set()
    for user in {event["user_id"] for event in acknowledged}:
        events = client.get(f"/v1/users/{user}/history").json()["events"]
        assert len({event["event_id"] for event in events}) == len(events)
        kept |= {(user, event["event_id"]) for event in events}
    return len({(event["user_id"], event["event_id"]) for event in acknowledged} - kept)


def lost(client: httpx.Client, acknowledged: Sequence[dict[str, Any]]) -> int:
    """The same; where none is, none is new when all are sent again."""
    found = missing(client, acknowledged)
    for start in range(0, 0 if found else len(acknowledged), _AT_ONCE):
        again = client.post("/v1/events", json=acknowledged[start : start + _AT_ONCE])
        assert again.json()["accepted"] == 0, again.text
    return found
