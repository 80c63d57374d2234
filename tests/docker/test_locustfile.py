"""The locustfile, run by locust itself against a real service."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from bench.served import served
from tests.system import missing
from tests.tiny import make_bundle, random_items

FILE = Path(__file__).parents[2] / "docker" / "load" / "locustfile.py"


@pytest.fixture
def locust() -> list[str]:
    """The command. It is never imported here: it patches what it is imported into."""
    found = Path(sys.executable).with_name("locust")
    if not found.exists():
        missing("locust is missing: pip install -r requirements/load.txt")
    return [str(found), "-f", str(FILE), "--headless"]


def test_its_users_are_served(locust: list[str], tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, random_items(60, (5, 5)))
    with served(bundle.path, 1, {"engine": "fake"}) as one:
        done = subprocess.run(
            [
                *(*locust, "--host", one.url, "--users", "8", "--spawn-rate", "8"),
                *("--run-time", "4s", "--think", "0.1"),
                *("--known-users", "10", "--event-share", "0.4"),
                *("--csv", str(tmp_path / "found")),
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
        history = httpx.get(f"{one.url}/v1/users/load-20-0/history").json()["events"]
    assert done.returncode == 0, done.stderr
    with (tmp_path / "found_stats.csv").open() as file:
        rows = {row["Name"]: row for row in csv.DictReader(file)}
    for path in ("/v1/recommendations", "/v1/events"):
        assert int(rows[path]["Request Count"]) > 10, done.stderr
        assert rows[path]["Failure Count"] == "0", done.stderr
    assert {event["event_id"].partition("-")[0] for event in history} >= {"load"}
    assert "gevent" not in sys.modules


def test_where_nobody_is_it_ends_and_says_so(locust: list[str]) -> None:
    done = subprocess.run(
        [*locust, "--host", "http://127.0.0.1:9", "--run-time", "3s", "--users", "1"],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"SIDREC_KEY": "secret"},
    )
    assert done.returncode != 0
    assert "refused" in done.stderr.lower()
    assert "secret" not in done.stderr + done.stdout
