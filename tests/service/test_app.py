"""The application's lifespan: what it starts, and that it frees all of it."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from model_store.bundle import Bundle
from model_store.errors import BundleError
from service.app import create_app
from service.errors import EngineError
from service.redis_server import EmbeddedRedis
from service.settings import Settings
from tests.service.conftest import PATIENT_MS
from tests.service.test_api import HISTORY, event, recommend


def settings(bundle: Path, state: Path) -> Settings:
    return Settings(
        bundle=bundle, engine="fake", state_dir=state, redis_timeout_ms=PATIENT_MS, threads=1
    )


def engine_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "sidrec-engine"}


@pytest.fixture
def nothing_is_left() -> Callable[[Path], bool]:
    """Whether the engine's thread has ended and the private Redis has let go of its folder."""
    others = engine_threads()  # engines that tests of other modules share

    def check(state: Path) -> bool:
        with EmbeddedRedis(state / "redis"):
            return engine_threads() <= others

    return check


def test_a_private_redis_keeps_what_it_was_told(
    bundle: Bundle, tmp_path: Path, nothing_is_left: Callable[[Path], bool]
) -> None:
    app = create_app(settings(bundle.path, tmp_path))
    with TestClient(app) as client:
        client.post("/v1/events", json=[event(1)])
        engine = client.app_state["service"].holder.current.engine
        assert engine.alive
    assert not engine.alive
    assert nothing_is_left(tmp_path)
    with TestClient(app) as client:  # an application can start again
        assert recommend(client, user_id="ann")["history_used"] == 1


def test_a_bundle_that_does_not_load(
    tmp_path: Path, nothing_is_left: Callable[[Path], bool]
) -> None:
    with (
        pytest.raises(BundleError, match="no such folder"),
        TestClient(create_app(settings(tmp_path / "none", tmp_path))),
    ):
        pass
    assert nothing_is_left(tmp_path)


def test_an_engine_that_cannot_answer_is_not_put_in_service(
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    nothing_is_left: Callable[[Path], bool],
) -> None:
    failing = settings(bundle.path, tmp_path).model_copy(update={"engine_options": {"fails": True}})
    with pytest.raises(EngineError, match="told to fail"), TestClient(create_app(failing)):
        pass
    assert nothing_is_left(tmp_path)


def test_a_redis_that_is_away_at_the_start(bundle: Bundle) -> None:
    away = Settings(bundle=bundle.path, engine="fake", redis_url="redis://127.0.0.1:1")
    with TestClient(create_app(away)) as client:
        unready = client.get("/readyz")  # nobody knows what was deleted
        assert unready.status_code == 503
        assert unready.json()["type"] == "urn:sidrec:problem:catalogue-unavailable"
        assert recommend(client, history=HISTORY)["source"] == "model"
