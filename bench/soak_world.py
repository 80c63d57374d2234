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

from bench.served import Connection, NotServing, Served
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
    """What a process holds at one moment: bytes resident and its share of those that it has in
    common with others; open files, and how many of them are connections of clients; threads; the
    bytes of its Redis, None while that is away."""

    at: float
    rss: int
    pss: int
    files: int
    clients: int
    threads: int
    redis: int | None


class World:
    """What has happened so far; lists are only appended to."""

    def __init__(self, one: Served) -> None:
        self.swaps: list[Swap] = []
        self.refused: list[Refused] = []
        self.outages: list[Outage] = []
        self.samples: list[Sample] = []
        self.failed: list[str] = []
        self._one = one
        self._over = threading.Event()

    @contextmanager
    def running(
        self, name: str, *, swap_s: float, outage_s: float, away_s: float, sample_s: float
    ) -> Iterator[None]:
        """Swaps the versions of `name` every `swap_s`, takes Redis away for `away_s` every
        `outage_s`, and looks every `sample_s`."""
        work: list[Callable[[], None]] = [
            lambda: self._swap(name, swap_s),
            lambda: self._break(outage_s, away_s),
            lambda: self._sample(sample_s),
        ]
        threads = [threading.Thread(target=self._guarded, args=(one,)) for one in work]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self.failed.append(repr(error))

    def _swap(self, name: str, every_s: float) -> None:
        new, old = 2, 1
        for _ in self._every(every_s):
            began = time.perf_counter()
            try:
                with Connection(self._one.url) as connection:
                    self.swaps.append(swap_model(connection, name, new, old))
            except NotServing as error:  # nothing has changed, so the same is tried again
                self.refused.append(Refused(began, time.perf_counter(), str(error)))
            else:
                new, old = old, new

    def _break(self, every_s: float, away_s: float) -> None:
        redis = self._one.redis
        for number in self._every(every_s):
            began, killed = time.perf_counter(), number % 2 == 0
            if killed:
                os.kill(self._one.redis_pid, signal.SIGKILL)
            redis.stop()
            self._over.wait(away_s)
            redis.start()
            self.outages.append(Outage(began, time.perf_counter(), killed))

    def _sample(self, every_s: float) -> None:
        process = psutil.Process(self._one.pid)
        port = int(self._one.url.rsplit(":", 1)[1])
        for _ in self._every(every_s):
            clients = [
                c for c in process.net_connections("tcp") if c.raddr and c.laddr.port == port
            ]
            self.samples.append(
                Sample(
                    time.perf_counter(),
                    process.memory_info().rss,
                    _pss(process.pid),
                    process.num_fds(),
                    len(clients),
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

    def _every(self, seconds: float) -> Iterator[int]:
        """Numbers, one each `seconds` from now on, until it is over."""
        start, number = time.perf_counter(), 0
        while not self._over.wait(max(0.0, start + (number + 1) * seconds - time.perf_counter())):
            yield number
            number += 1


def _pss(pid: int) -> int:
    """Proportional set size in bytes; one summary line, where psutil would read every mapping."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return 0
