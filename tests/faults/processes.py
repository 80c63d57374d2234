"""What is broken on purpose: services and Redis servers, in processes of their own."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
import redis

from tests.system import program

START_S = 120
POLL_S = 0.02


def eventually(what: Callable[[], bool], within_s: float = 20) -> float:
    """Seconds until `what` holds; fails where it does not."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < within_s, "it did not happen in time"
        time.sleep(POLL_S)
    return time.monotonic() - began


def free_port() -> int:
    """Below what the kernel gives to clients: while nobody listens here, a client could else be
    connected to itself."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Redis:
    """A real server that keeps its data in `folder`; appends are on disk before they are answered,
    unless an option says otherwise."""

    def __init__(self, port: int, folder: Path, **options: str) -> None:
        self.port = port
        self.url = f"redis://127.0.0.1:{port}"
        defaults = {"appendonly": "yes", "appendfsync": "always", "save": "", "bind": "127.0.0.1"}
        self._options = defaults | options
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._folder.mkdir(exist_ok=True)
        options = [text for key, value in self._options.items() for text in (f"--{key}", value)]
        self._process = subprocess.Popen(
            [program("redis-server"), "--port", str(self.port), *options],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually(self._answers)

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    @property
    def runs(self) -> bool:
        return self._process is not None

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """As if the machine's power went for this process alone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def command(self, *words: str) -> Any:
        with redis.Redis.from_url(self.url) as client:
            return client.execute_command(*words)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()


def kill_whole(process: subprocess.Popen[Any]) -> None:
    """Kills a service and what it has started: its own Redis would outlive it, and wait for the
    next one on the same data."""
    if process.poll() is None:
        started = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for child in started:
            with suppress(psutil.NoSuchProcess):
                child.kill()
    process.wait(START_S)


class Service:
    """A real `sidrec serve`; settings by their names in `service.settings`. Port 0: a free one."""

    def __init__(
        self,
        log: Path,
        settings: Mapping[str, Any],
        *,
        module: str = "service.cli",
        port: int = 0,
    ) -> None:
        self._log = log
        given = {"threads": 1, **settings}
        environment = {f"SIDREC_{name.upper()}": str(value) for name, value in given.items()}
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, "serve", "--port", str(port)],
                env=os.environ | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        eventually(lambda: self._listening() is not None or not self.runs, START_S)
        url = self._listening()
        assert url is not None, log.read_text()
        self.url = url

    def _listening(self) -> str | None:
        return next((line["url"] for line in self.lines("listening")), None)

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The log lines of a kind."""
        whole = [line for line in self._log.read_text().splitlines() if line.endswith("}")]
        lines = [json.loads(line) for line in whole if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    @property
    def said(self) -> str:
        return self._log.read_text()

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    @property
    def rss_mb(self) -> float:
        return float(psutil.Process(self.process.pid).memory_info().rss / 1e6)

    def client(self, timeout_s: float = 60) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=timeout_s)

    def metric(self, name: str) -> float:
        with self.client() as client:
            text = client.get("/metrics").text
        return next(float(s.split()[1]) for s in text.splitlines() if s.startswith(f"{name} "))

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal; the exit code."""
        if self.runs:
            self.process.send_signal(number)
        return self.process.wait(START_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        kill_whole(self.process)
