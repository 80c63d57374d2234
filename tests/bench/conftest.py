"""What the tests of the benchmarks share."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import bench.eligibility
from bench import machine, trie_contest
from model_store.bundle import Bundle
from service.cli import cli
from tests.tiny import make_bundle, random_items

Measure = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """A benchmark chooses torch's threads for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """As few repetitions as there may be: no test looks at how long anything took."""
    monkeypatch.setattr(machine, "_TRY_S", 0.0)
    monkeypatch.setattr(trie_contest, "_TURN_S", 0.0)
    monkeypatch.setattr(bench.eligibility, "_TURN_S", 0.0)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Some SIDs end early, and are prefixes of others."""
    items = random_items(200, (6, 6, 6), extra_share=0.2)
    return make_bundle(tmp_path_factory.mktemp("bench"), items)


@pytest.fixture
def measure(tmp_path: Path) -> Measure:
    """Runs `sidrec bench NAME …` to its end; what the one JSON file says that it wrote."""

    def run(*arguments: object) -> dict[str, Any]:
        out = tmp_path / "out"
        result = CliRunner().invoke(cli, ["bench", *map(str, arguments), "--out", str(out)])
        assert result.exit_code == 0, result.output
        [written] = out.glob("*.json")
        assert written.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
        document: dict[str, Any] = json.loads(written.read_text())
        assert document["machine"]["cores"] >= 1
        return document

    return run
