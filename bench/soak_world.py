"""What happens around a service while it is soaked: versions are swapped, its Redis goes and comes
back, and somebody looks at its memory and its open files. Each on a thread, until left."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.connection import Connection, NotServing
from bench.served import Served
from bench.swapped import Swap, swap_model


@dataclass(frozen=True, slots=True)
class Outage:
    """From when Redis was told to go until it answered again, and whether it was killed."""

    began: float
    ended: float
    killed: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """A swap that was, from when to when, and why."""

    began: float
    ended: float
    why: str


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process holds at one moment.

    rss, pss: bytes resident, and its share of those that it has in common with others
    files:    all that are open, those that follow among them
    clients:  connections of clients, who decide how many there are
    unix:     connections to Redis, as many as a burst has ever needed, at most its pool
    redis:    bytes of its Redis, None while that is away
    """

    at: float
    rss: int
    pss: int
    files: int
    clients: int
    unix: int
    threads: int
    redis: int | None

    @property
    def own(self) -> int:
        """Open files that are no connections."""
        return self.files - self.clients - self.unix


class World:
    """What has happened so far; lists are only appended to."""

    def __init__(self, one: Served) -> None:
        self.swaps: list[Swap] = []
        self.refused: list[Refused] = []
        self.outages: list[Outage] = []
        self.samples: list[Sample] = []
        self.failed: list[str] = []
        self._one = one

    @contextmanager
    def meanwhile(self, *work: Callable[[threading.Event], None]) -> Iterator[None]:
        """Each on a thread, until left, when the event is set that it is given."""
        over = threading.Event()

        def guarded(one: Callable[[threading.Event], None]) -> None:
            try:
                one(over)
            except Exception as error:
                self.failed.append(repr(error))

        threads = [threading.Thread(target=guarded, args=(one,)) for one in work]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def swapping(self, over: threading.Event, *, name: str, every_s: float) -> None:
        """From version 1, which is active, to version 2, and back."""
        new, old = 2, 1
        for _ in _every(every_s, over):
            began = time.perf_counter()
            try:
                with Connection(self._one.url) as connection:
                    self.swaps.append(swap_model(connection, name, new, old))
            except NotServing as error:  # nothing has changed, so the same is tried again
                self.refused.append(Refused(began, time.perf_counter(), str(error)))
            else:
                new, old = old, new

    def breaking(self, over: threading.Event, *, every_s: float, away_s: float) -> None:
        """Redis goes, killed and shut down in turn, and comes back on the data that it left."""
        redis = self._one.redis
        for number in _every(every_s, over):
            began, killed = time.perf_counter(), number % 2 == 0
            if killed:
                os.kill(self._one.redis_pid, signal.SIGKILL)
            redis.stop()
            over.wait(away_s)
            redis.start()
            self.outages.append(Outage(began, time.perf_counter(), killed))

    def looking(self, over: threading.Event, *, every_s: float) -> None:
        """At what the service and its Redis hold."""
        process = psutil.Process(self._one.pid)
        port = int(self._one.url.rsplit(":", 1)[1])
        for _ in _every(every_s, over):
            tcp, unix = process.net_connections("tcp"), process.net_connections("unix")
            self.samples.append(
                Sample(
                    time.perf_counter(),
                    process.memory_info().rss,
                    _pss(process.pid),
                    process.num_fds(),
                    sum(bool(one.raddr) and one.laddr.port == port for one in tcp),
                    len(unix),
                    process.num_threads(),
                    self._redis_rss(),
                )
            )

    def _redis_rss(self) -> int | None:
        pid = self._one.redis.pid
        try:
            return None if pid is None else int(psutil.Process(pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return None


def _every(seconds: float, over: threading.Event) -> Iterator[int]:
    """Numbers, one each `seconds` from now on, until it is over."""
    start, number = time.perf_counter(), 0
    while not over.wait(max(0.0, start + (number + 1) * seconds - time.perf_counter())):
        yield number
        number += 1


def _pss(pid: int) -> int:
    """Proportional set size in bytes; one summary line, where psutil would read every mapping."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return 0
