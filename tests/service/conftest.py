"""Bundles, and the application over them, for everything above the engine."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from model_store.bundle import Bundle
from model_store.prompt import ProfileField, PromptTemplate
from service.app import create_app
from service.settings import Settings
from tests.tiny import TEMPLATE, make_bundle, random_items

MakeClient = Callable[..., TestClient]

# A loaded test machine may stop us for longer than any sensible production budget.
PATIENT_MS = 10_000

SCENE_TEMPLATE = PromptTemplate(
    text="{profile} in {scene}: {history} next ",
    profile=(ProfileField(name="age", text="age {}", values=("young", "old")),),
    scenes=("home", "cart"),
)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """300 items on up to 80 SIDs: most SIDs name several items, some are prefixes of others."""
    items = random_items(300, (4, 4, 4), extra_share=0.1)
    return make_bundle(tmp_path_factory.mktemp("bundle"), items)


@pytest.fixture(scope="session")
def scene_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose prompt speaks of profile and scene, and that counts by scene."""
    items = random_items(60, (4, 4, 4))
    for number, item in enumerate(items):
        item["popularity_by_scene"] = {"home": number, "cart": -number}
    return make_bundle(tmp_path_factory.mktemp("scenes"), items, prompt=SCENE_TEMPLATE)


@pytest.fixture(scope="session")
def opening_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose SIDs stand between constant tokens."""
    items = random_items(60, (4, 4, 4))
    for item in items:
        item["sid"] = f"<|sid_begin|>{item['sid']}<|sid_end|>"
    return make_bundle(tmp_path_factory.mktemp("opening"), items, prompt=TEMPLATE)


@pytest.fixture
def make_client(bundle: Bundle, redis_url: str, tmp_path: Path) -> Iterator[MakeClient]:
    """Makes a client of a started application; keyword arguments are settings."""
    with ExitStack() as stack:

        def make(**options: Any) -> TestClient:
            defaults: dict[str, Any] = {
                "bundle": bundle.path,
                "engine": "fake",
                "redis_url": redis_url,
                "redis_timeout_ms": PATIENT_MS,
                "state_dir": tmp_path,
            }
            app = create_app(Settings(**(defaults | options)))
            return stack.enter_context(TestClient(app))

        yield make


@pytest.fixture
def client(make_client: MakeClient) -> TestClient:
    """A client of an application with a fake engine and an empty Redis."""
    return make_client()
