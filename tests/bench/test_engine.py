"""The engine benchmark from end to end, on a model that takes milliseconds."""

from pathlib import Path

import pytest

from bench import shapes
from bench.contestants import HUGGING_FACE, TORCH, Setup
from bench.engine import Cell
from bench.engine import measure as measure_cells
from model_store.bundle import Bundle
from model_store.store import Store
from service.engine import Query, create_engine
from service.errors import EngineError
from tests.bench.conftest import Measure


def test_it_runs_to_the_end(measure: Measure, bundle: Bundle) -> None:
    found = measure(
        "engine",
        *("--bundle", bundle.path, "--tokens", "40,60,9999", "--beams", "4,7"),
        *("--in-flight", "1,3", "--rounds", 2, "--threads", 1),
    )
    assert found["settings"]["tokens"] == [40, 60, 9999]
    cells = {(row["tokens"], row["beams"], row["in_flight"]) for row in found["rows"]}
    assert cells == {(40, 4, 1), (60, 4, 1), (40, 7, 1), (40, 4, 3)}  # one list at a time
    assert len(found["rows"]) == 2 * len(cells)
    for row in found["rows"]:
        assert row["same_order"] == row["same_beams"] == 1
        assert row["seconds"]["count"] == (2 if row["in_flight"] == 1 else 3)
        per_second = row["in_flight"] / row["seconds"]["median"]
        assert row["per_second"] == pytest.approx(per_second)
        floor = sum(max(p["arithmetic"], p["memory"]) for p in row["floor_phases"])
        assert row["floor_seconds"] == pytest.approx(floor)
        assert row["time_over_floor"] == pytest.approx(row["seconds"]["median"] / floor)
        assert len(row["floor_phases"]) == bundle.spec.depth
    ratios = {row["contestant"]: row["over_torch"]["median"] for row in found["rows"]}
    assert ratios[TORCH] == 1
    assert ratios[HUGGING_FACE] > 1


def test_who_loses_patience_sits_out_larger_cells_only(bundle: Bundle) -> None:
    cells = [Cell(30, 4, 1), Cell(60, 4, 1), Cell(20, 8, 1)]
    setup = Setup(bundle, 8)
    names = [TORCH, HUGGING_FACE]
    patient = measure_cells(setup, names, cells, rounds=1, patience=60)
    assert [set(outcome.seconds) for outcome in patient] == [set(names)] * 3
    # Nobody is as quick as that, so each cell is a first time or no time.
    assert measure_cells(setup, names, cells, rounds=1, patience=0) == []
    assert cells[1].at_least(cells[0])
    assert not cells[2].at_least(cells[0])


def test_prompts_are_as_long_as_they_can_be(bundle: Bundle) -> None:
    found = shapes.prompts(bundle, 50, 8)
    assert {len(prompt) for prompt in found} <= {46, 47, 48, 49, 50}
    assert found == shapes.prompts(bundle, 50, 8)


def test_those_who_return_were_there_before(measure: Measure, bundle: Bundle) -> None:
    before = shapes.prompts(bundle, 50, 8, before_last=True)
    after = shapes.prompts(bundle, 50, 8)
    assert all(len(old) < len(new) for old, new in zip(before, after, strict=True))
    found = measure(
        "engine",
        *("--bundle", bundle.path, "--tokens", 50, "--beams", 4, "--in-flight", "1,2"),
        *("--returning", "--rounds", 2, "--threads", 1),
    )
    assert {row["same_order"] for row in found["rows"]} == {1}


def test_random_weights_are_a_bundle_like_any_other(tmp_path: Path) -> None:
    config = shapes.QWEN | {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    }
    made = shapes.make_random(Store(tmp_path), "random", config, 400, 50, (4, 4, 4))
    assert (made.max_length, made.spec.depth, len(made.catalogue)) == (64, 3, 50)
    with create_engine("torch", made) as engine:
        [found] = engine.search_batch([Query(shapes.prompts(made, 40, 1)[0], 5)])
        assert len({beam.codes for beam in found}) == 5
        with pytest.raises(EngineError):
            engine.search_batch([Query([1] * 64, 5)])
