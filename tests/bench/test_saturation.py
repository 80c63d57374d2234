"""The prediction, and the search for it: real processes, a real Redis and engine."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from model_store.bundle import Bundle
from service.cli import cli


def test_it_runs_to_the_end(bundle: Bundle, tmp_path: Path) -> None:
    options = ["--bundle", bundle.path, "--seconds", 0.7, "--repeats", 1, "--within", 2]
    more = ["--start", 20, "--p99", 5000, "--in-flight", 4, "--out", tmp_path]
    result = CliRunner().invoke(cli, ["bench", "saturation", *map(str, [*options, *more])])
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "saturation.json").read_text())
    [row] = document["rows"]
    # 30% are events, and some users have no history.
    assert 0.4 < row["searching_share"] < 0.92
    assert row["engine_over_share"] == pytest.approx(
        row["engine_per_second"] / row["searching_share"]
    )
    least = 1 / row["engine_over_share"] + row["around_ms"] / 1e3
    assert row["predicted"] == pytest.approx(1 / least)
    assert row["found_over_predicted"] == pytest.approx(row["found"] / row["predicted"])
    assert 0 < row["service_cores"] < 3
    assert document["load"]["highest_rate"] == row["found"]
    assert "<h2>By rate</h2>" in (tmp_path / "saturation.html").read_text()
