"""Bundles, and the application over them, for everything above the engine."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from starlette.testclient import TestClient

from model_store.bundle import Bundle
from model_store.prompt import ProfileField, PromptTemplate
from service.app import create_app
from service.redis_server import find_binary
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


@pytest.fixture(scope="session")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    """Versions 1 and 2 of one bundle in one store: each has 60 items, of which they share the last
    20, with other SIDs."""
    folder = tmp_path_factory.mktemp("versions")
    items = [random_items(60, (4, 4, 4), seed=seed) for seed in (1, 2)]
    for number, of_one in enumerate(items, start=1):
        for item in of_one[:40]:
            item["item_id"] = f"v{number}-{item['item_id']}"
    one, two = (make_bundle(folder, of_one, name="shop") for of_one in items)
    return one, two


@pytest.fixture
def make_client(bundle: Bundle, redis_url: str, tmp_path: Path) -> Iterator[MakeClient]:
    """Makes a client of a started application; keyword arguments are settings."""
    with ExitStack() as stack:

        def make(**options: Any) -> TestClient:
            defaults: dict[str, Any] = {
                **({} if "store" in options else {"bundle": bundle.path}),
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


@pytest.fixture(scope="session")
def cluster_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a cluster of one node."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        # The node also listens on this port + 10000.
        port = probe.getsockname()[1] % 20_000 + 20_000
    options = ["--port", str(port), "--bind", "127.0.0.1", "--cluster-enabled", "yes", "--save", ""]
    server = subprocess.Popen(
        [find_binary(), *options],
        cwd=tmp_path_factory.mktemp("cluster"),
        stdout=subprocess.DEVNULL,
    )
    url = f"redis://127.0.0.1:{port}"
    try:
        with redis.Redis.from_url(url, retry=Retry(ConstantBackoff(0.02), 200)) as node:
            node.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
            while "cluster_state:ok" not in str(node.execute_command("CLUSTER", "INFO")):
                time.sleep(0.02)
        yield url
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def cluster_url(cluster_node: str) -> str:
    """A cluster with nothing in it: it refuses commands whose keys lie in several slots, as any
    does."""
    with redis.Redis.from_url(cluster_node) as node:
        node.flushall()
    return cluster_node
