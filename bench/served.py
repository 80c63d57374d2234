"""A service of our own: a real `sidrec serve` on a real Redis, in processes of their own."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.connection import NotServing
from service.redis_server import EmbeddedRedis

_START_S = 120.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Served:
    """Where it listens, its process id, and its Redis, which may be stopped and started."""

    url: str
    pid: int
    redis: EmbeddedRedis

    @property
    def redis_pid(self) -> int:
        assert self.redis.pid is not None
        return self.redis.pid

    def cpu_s(self, *, redis: bool = True) -> float:
        """Processor time of the service so far, with that of its Redis or without."""
        pids = (self.pid, self.redis_pid) if redis else (self.pid,)
        times = [psutil.Process(pid).cpu_times() for pid in pids]
        return float(sum(time.user + time.system for time in times))


@contextmanager
def served(bundle: Path | None, threads: int, settings: Mapping[str, Any]) -> Iterator[Served]:
    """`sidrec serve` on a free port; `settings` by the names of `service.settings`, a store among
    them where there is no `bundle`.

    Raises `NotServing` with what it said when it does not start.
    """
    with (
        tempfile.TemporaryDirectory(prefix="sidrec-bench-") as name,
        EmbeddedRedis(Path(name) / "redis") as redis,
    ):
        log = Path(name) / "log"
        given = {"bundle": bundle, "threads": threads, "redis_url": redis.url, **settings}
        environment = {
            f"SIDREC_{key.upper()}": str(value) for key, value in given.items() if value is not None
        }
        command = [sys.executable, "-m", "service.cli", "serve", "--port", "0"]
        with log.open("w") as output:
            process = subprocess.Popen(
                command, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            url = _listening(process, log)
            yield Served(url, process.pid, redis)
        finally:
            process.terminate()
            process.wait()


def _listening(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            if line.startswith("{") and '"listening"' in line:
                return str(json.loads(line)["url"])
        time.sleep(_POLL_S)
    raise NotServing(f"sidrec serve did not start:\n{log.read_text()}")
