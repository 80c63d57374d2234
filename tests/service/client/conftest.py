"""A real service with keys and a Redis of its own, which tests may stop."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from model_store.bundle import Bundle
from service.keys.key import new_secret
from service.redis_server import EmbeddedRedis
from tests.faults.processes import Service
from tests.service.keys.made import key, write

SECRETS = {name: new_secret() for name in ("all", "reader", "eager", "rare")}
KEYS = (
    key("all", SECRETS["all"], "read", "write", "admin"),
    key("reader", SECRETS["reader"], "read"),
    key("eager", SECRETS["eager"], "read", rate="1/second"),
    key("rare", SECRETS["rare"], "read", rate="1/hour"),
)


@dataclass(frozen=True, slots=True)
class Served:
    """A service, and the means to keep it from answering."""

    service: Service
    redis: EmbeddedRedis

    @property
    def url(self) -> str:
        return self.service.url

    @contextmanager
    def without_redis(self) -> Iterator[None]:
        assert self.redis.pid is not None
        with _stopped(self.redis.pid):
            yield

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Connections are accepted by the kernel, and nobody answers."""
        with _stopped(self.service.process.pid):
            yield


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def served(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("client")
    file = write(folder / "keys.toml", *KEYS)
    with EmbeddedRedis(folder / "redis") as redis:
        settings = {
            "bundle": bundle.path,
            "engine": "fake",
            "redis_url": redis.url,
            "redis_timeout_ms": 500,
            "keys_file": file,
        }
        with Service(folder / "log", settings) as service:
            yield Served(service, redis)
