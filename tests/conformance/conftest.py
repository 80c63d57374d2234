"""One suite, run over every engine. An engine that is not installed is skipped, never in CI."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from model_store.bundle import Bundle
from service.engine import Engine, create_engine
from service.settings import Settings
from tests.engine.conftest import one_thread as one_thread
from tests.system import missing

LIBRARIES = {"torch": "torch", "vllm": "vllm"}

OPTIONS: dict[str, dict[str, object]] = {
    "torch": {"device": "cpu"},
    "vllm": {"kv_cache_memory_bytes": 2**28} if not torch.cuda.is_available() else {},
}


@pytest.fixture(scope="session", params=LIBRARIES)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if importlib.util.find_spec(LIBRARIES[name]) is None:
        missing(f"{LIBRARIES[name]} is not installed, and the engine {name!r} not tested")
    return name


@pytest.fixture(scope="session")
def demo() -> Bundle:
    path: Path = Settings.model_fields["bundle"].default
    return Bundle.load(path)


@pytest.fixture(scope="module")
def engine(kind: str, demo: Bundle) -> Iterator[Engine]:
    """One engine on the demo bundle for a whole module: a process holds only so many of vLLM's."""
    with create_engine(kind, demo, **OPTIONS[kind]) as engine:
        yield engine


@pytest.fixture(scope="module")
def reference(demo: Bundle) -> Iterator[Engine]:
    """The torch engine, which `tests/engine/test_parity.py` holds against Hugging Face."""
    with create_engine("torch", demo, device="cpu") as engine:
        yield engine
