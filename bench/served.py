"""A service of our own: a real `sidrec serve` on a real Redis, in processes of their own."""

import http.client
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
from urllib.parse import urlsplit

import psutil

from bench.users import Users
from service.redis_server import EmbeddedRedis

_START_S = 120.0
_POLL_S = 0.05


class NotServing(Exception):
    """The service did not start, or answered with an error; says which."""


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

    def cpu_s(self) -> float:
        """Processor time of the service and its Redis so far."""
        times = [psutil.Process(pid).cpu_times() for pid in (self.pid, self.redis_pid)]
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


def store_histories(url: str, users: Users) -> None:
    """Hands everybody's events to the service. Raises `NotServing` where it refuses them."""
    with Connection(url) as connection:
        for body in users.events():
            status, answer = connection.post("/v1/events", body)
            if status != 200:
                raise NotServing(f"events were answered with {status}: {answer!r}")


class Connection:
    """One connection that is kept, with as little of a client around it as Python has."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        self._connection = kind(parts.netloc, timeout=_START_S)

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        return self.ask("POST", path, body)

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """The same with another method."""
        self._connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def _listening(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            if line.startswith("{") and '"listening"' in line:
                return str(json.loads(line)["url"])
        time.sleep(_POLL_S)
    raise NotServing(f"sidrec serve did not start:\n{log.read_text()}")
