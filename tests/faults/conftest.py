"""One service for the rows that break its Redis, durations, and the table at the end.

FAULTS_SCALE multiplies how long faults last (1 in `make test`, 10 in `make faults`); FAULTS_TABLE
is the document whose table is written when all rows have run.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_store.bundle import Bundle
from tests.faults import matrix
from tests.faults.processes import Redis, Service, free_port
from tests.tiny import make_bundle, random_items

_SEEN = pytest.StashKey[dict[str, str]]()


class Report:
    """Where a row says what was seen."""

    def __init__(self, name: str, seen: dict[str, str]) -> None:
        self._name, self._seen = name, seen

    def saw(self, what: str) -> None:
        self._seen[self._name] = what
        print(f"{self._name}: {what}")


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """For the row that the test is named after."""
    name = request.node.originalname.removeprefix("test_")
    assert name in matrix.ROWS, f"matrix.ROWS says nothing of {name}"
    return Report(name, request.config.stash.setdefault(_SEEN, {}))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if (document := os.environ.get("FAULTS_TABLE")) and exitstatus == pytest.ExitCode.OK:
        empty: dict[str, str] = {}
        seen = session.config.stash.get(_SEEN, empty)
        matrix.write(Path(document), seen)


@pytest.fixture(scope="session")
def scale() -> float:
    """What durations and counts are multiplied with."""
    return float(os.environ.get("FAULTS_SCALE", "1"))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("faults"), random_items(300, (6, 6, 6)))


@pytest.fixture(scope="session")
def redis_port() -> int:
    """Where every Redis of the shared service listens, one after the other."""
    return free_port()


@pytest.fixture
def redis(redis_port: int, tmp_path: Path) -> Iterator[Redis]:
    """The Redis of the shared service, empty."""
    with Redis(redis_port, tmp_path / "redis") as server:
        yield server


@pytest.fixture(scope="session")
def shared(
    bundle: Bundle, redis_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    settings = {
        "bundle": bundle.path,
        "engine": "fake",
        "redis_url": f"redis://127.0.0.1:{redis_port}",
    }
    with Redis(redis_port, folder / "redis") as first:
        service = Service(folder / "log", settings)
        first.kill()
    with service:
        yield service
        assert "Traceback" not in service.said


@pytest.fixture
def service(shared: Service) -> Service:
    """One service through all rows that leave it alive: what one does must not harm the next."""
    assert shared.runs, shared.said
    return shared
