"""One service on the demo bundle for all pages that start none; and how many blocks are run."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import redis

from service.redis_server import EmbeddedRedis
from tests.docs.blocks import PAGES, blocks
from tests.docs.reader import Reader
from tests.faults.processes import Service


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """The address of a service that starts when it is first asked for; knows no users then.

    It outlives its pages' tests and writes now and then, so it has a Redis of its own.
    """
    with ExitStack() as stack:
        running: list[tuple[EmbeddedRedis, Service]] = []

        def start() -> str:
            if not running:
                folder = tmp_path_factory.mktemp("docs")
                server = stack.enter_context(EmbeddedRedis(folder))
                settings = {"redis_url": server.url, "redis_timeout_ms": 10_000}
                running.append((server, stack.enter_context(Service(folder / "log", settings))))
            server, service = running[0]
            _forget_users(server.url, service.url)
            return service.url.removeprefix("http://")

        yield start


@pytest.fixture
def reader(shared: Callable[[], str], tmp_path: Path) -> Iterator[Reader]:
    """A person with an empty folder."""
    made = Reader(tmp_path, shared)
    yield made
    made.leaves()


def _forget_users(redis_url: str, url: str) -> None:
    """Pages speak of the same users, and none knows what another did with them."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        keys = list(client.scan_iter("sidrec:history:*"))
    for user in {key.partition("{")[2].partition("}")[0] for key in keys}:
        httpx.delete(f"{url}/v1/users/{user}").raise_for_status()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts = Counter(block.fate for page in PAGES for block in blocks(page))
    told = ", ".join(f"{number} {fate}" for fate, number in sorted(counts.items()))
    terminalreporter.write_line(f"code blocks of {len(PAGES)} pages: {told}")
