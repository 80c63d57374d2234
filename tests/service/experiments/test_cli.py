"""`sidrec experiments …` against a service that runs."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from model_store.bundle import Bundle
from service.cli import cli
from tests.service.experiments.conftest import design
from tests.service.test_api import HISTORY
from tests.service.test_app_process import Process


@pytest.fixture
def process(bundle: Bundle, tmp_path: Path) -> Iterator[Process]:
    state = {"SIDREC_STATE_DIR": str(tmp_path / "state"), "SIDREC_BUNDLE": str(bundle.path)}
    started = Process(["--engine", "fake"], state)
    yield started
    assert started.end(15) == (0, "")


def test_from_the_start_to_the_end(process: Process, tmp_path: Path) -> None:
    with process.client() as client:

        def run(*arguments: str, exit_code: int = 0) -> str:
            url = ["--url", str(client.base_url)]
            result: Result = CliRunner().invoke(cli, ["experiments", *arguments, *url])
            assert result.exit_code == exit_code, result.output
            return result.output

        file = tmp_path / "beams.json"
        assert f"{file}: " in run("put", "beams", str(file), exit_code=1)
        file.write_text(json.dumps(design()))
        assert run("put", "beams", str(file)).startswith("beams is running")
        assert "narrow 50%" in run("list")
        assert run("force", "beams", "ann", "wide") == "ann sees wide\n"
        for user in ("ann", "bob", "eve"):
            client.post("/v1/recommendations", json={"user_id": user, "history": HISTORY})
        assert run("force", "beams", "ann") == "ann sees what the hash says\n"
        assert "beams, running" in run("report", "beams")
        counted = client.get("/v1/experiments/beams/report").json()["arms"]
        assert sum(arm["exposed_users"] for arm in counted) == 2
        assert run("stop", "beams") == "beams has ended\n"
        assert "contradicts" not in run("delete", "beams")
        assert "There is no such thing" in run("report", "beams", exit_code=1)


def test_the_planner_asks_no_service() -> None:
    arguments = ["experiments", "plan", "--base-rate", "0.1"]
    result = CliRunner().invoke(cli, arguments)
    assert result.output == "control 14,751 users, other arm 14,751\n"
    impossible = CliRunner().invoke(cli, [*arguments, "--lift", "9.5"])
    assert impossible.exit_code == 1
    assert "no share of users" in impossible.output
