"""Agreement between types of weights: counted right, and measured on a real bundle."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.agreement import compared
from bench.cli import app
from model_store.bundle import Bundle
from service.engine import Beam
from tests.tiny import make_bundle, random_items


def beam(*codes: int) -> Beam:
    return Beam(codes, -1.0, range(1))


def test_shares_are_averaged_over_queries_that_have_an_answer() -> None:
    right = [[beam(1, 1), beam(1, 2)], [beam(3, 3)], []]
    found = [[beam(1, 2), beam(4, 4)], [beam(3, 3)], [beam(9, 9)]]
    assert compared(found, right) == {"same beams": 0.75, "same first": 0.5}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    items = random_items(200, (6, 6, 6), seed=2)
    return make_bundle(tmp_path_factory.mktemp("agreement"), items, hidden_size=128)


def test_fp32_agrees_with_itself_and_int8_nearly(bundle: Bundle, tmp_path: Path) -> None:
    cases = tmp_path / "cases.jsonl"
    ids = list(bundle.catalogue.row_of)
    rows = [
        {"history": ids[i : i + 4], "target": ids[i + 4]} if i % 2 else {"sequence": ids[i : i + 5]}
        for i in range(40)
    ]
    cases.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--cases", cases, "--bundle", bundle.path, "--count", 30, "--threads", 1]
    options += ["--dtypes", "float32,float32,int8", "--out", tmp_path]
    result = CliRunner().invoke(app, ["agreement", *map(str, options)])
    assert result.exit_code == 0, result.output
    first, same, small = json.loads((tmp_path / "agreement-tiny.json").read_text())["rows"]
    assert first["same beams"] == same["same beams"] == same["same first"] == 1
    assert first["HR@10"] == same["HR@10"]
    assert first["cases"] == 30
    assert 0.5 < small["same beams"] < 1
