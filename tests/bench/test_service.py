"""The service benchmark from end to end: a real process, a real Redis, a real engine."""

import subprocess
import sys

import pytest

from bench import shapes
from bench.connection import NotServing
from bench.served import served
from bench.service import STAGES
from bench.users import Users
from model_store.bundle import Bundle
from tests.bench.conftest import Measure


def test_it_runs_to_the_end(measure: Measure, bundle: Bundle) -> None:
    found = measure(
        "service",
        *("--bundle", bundle.path, "--requests", 10, "--in-flight", 4, "--seconds", 0.5),
        *("--rounds", 1, "--users", 20, "--threads", 1),
    )
    single, full, below = found["rows"]
    difference = single["service_ms"]["median"] - single["engine_ms"]["median"]
    assert single["p50_difference_ms"] == pytest.approx(difference)
    assert set(single["stages_ms"]) == {*STAGES, "HTTP"}
    assert single["not_by_the_model"] == full["failed"] == below["failed"] == 0
    ratio = full["service_per_second"]["median"] / full["engine_per_second"]["median"]
    assert full["over_engine"]["median"] == pytest.approx(ratio)
    assert 0 < full["load_cpu_share"]["median"] < 1
    assert 0 < full["service_cpu_share"]["median"] <= 1.05
    assert full["over_engine_without_load"]["median"] > ratio
    assert below["rate"] == pytest.approx(0.7 * full["service_per_second"]["median"])
    assert below["p99_ms"]["median"] >= below["p50_ms"]["median"] > 0


def test_a_service_that_does_not_start_says_why(bundle: Bundle) -> None:
    with (
        pytest.raises(NotServing, match="no such folder"),
        served(bundle.path / "nowhere", 1, {}),
    ):
        pass


def test_users_are_the_same_each_time_and_some_come_more_often(bundle: Bundle) -> None:
    users, again = (Users(shapes.popular(bundle), 50) for _ in range(2))
    assert users.histories == again.histories
    visits = users.draw(1000)
    assert visits == again.draw(1000)
    assert visits.count(0) > 4 * max(1, visits.count(40))
    known = set(bundle.catalogue.item_ids)
    assert all(set(history) <= known for history in users.histories)


def test_a_missing_library_is_one_line_that_names_the_extra() -> None:
    code = "import sys; sys.modules['matplotlib'] = None\nfrom service.cli import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", code, "bench", "trie"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == "matplotlib is missing: pip install 'sidrec[bench]'\n"
