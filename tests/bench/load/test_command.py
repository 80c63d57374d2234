"""`sidrec load` against a service that is real: its process, its Redis, its HTTP."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from typer.testing import CliRunner, Result

from bench.load.command import milliseconds, share
from bench.load.wares import from_file, from_service
from bench.served import served
from model_store.bundle import Bundle
from service.cli import cli
from service.keys.file import entry
from service.keys.key import Key, digest, new_secret
from tests.bench.test_http_load import SlowServer, server
from tests.system import program
from tests.tiny import random_items, write_items

__all__ = ["server"]


@pytest.fixture(scope="module")
def url(bundle: Bundle) -> Iterator[str]:
    with served(bundle.path, 1, {"engine": "fake"}) as one:
        yield one.url


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those of the bundle."""
    made = random_items(200, (6, 6, 6), extra_share=0.2)
    return write_items(made, tmp_path_factory.mktemp("items") / "items.jsonl")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "reports" / "load.html"


def load(url: str, items: Path | None, out: Path, *arguments: object) -> Result:
    """Clicks what the service lists, or `items`."""
    listed = [] if items is None else ["--items", items]
    options = [*listed, "--out", out, "--users", 20, *arguments]
    return CliRunner().invoke(cli, ["load", url, *map(str, options)])


def written(out: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(out.with_suffix(".json").read_text())
    return document


def count(url: str, route: str) -> float:
    """Requests that the service has answered with 200."""
    text = httpx.get(f"{url}/metrics").text
    found = re.search(
        rf'sidrec_http_requests_total{{[^}}]*route="{route}",status="200"}} (\S+)', text
    )
    return float(found[1]) if found else 0.0


def test_what_it_reports_is_what_the_service_saw(url: str, items: Path, out: Path) -> None:
    routes = ("/v1/recommendations", "/v1/events")
    before = [count(url, route) for route in routes]
    result = load(
        *(url, items, out, "--rate", 60, "--seconds", 3, "--warm-up", 0.5, "--filters", "50%"),
        *("--processes", 2, "--p99", "20s", "--errors", "0%", "--fallbacks", 0),
    )
    assert result.exit_code == 0, result.output
    found = written(out)
    asked, events = (row["requests"] for row in found["kinds"])
    assert asked + events == found["requests"] == found["steps"][0]["requests"]
    assert found["requests"] == 180  # as many as were due
    # More than it reports, by the warm-up and by the histories that were stored.
    after = [count(url, route) for route in routes]
    assert asked < after[0] - before[0] < asked + 60
    assert events < after[1] - before[1] < events + 60
    assert found["failed"] == found["fallbacks"] == 0
    assert {row["source"] for row in found["sources"]} >= {"model", "popular"}
    # Each stage by the answers and by the metrics, which count the same.
    told = {row["stage"]: row for row in found["server"]["stages"]}
    said = {row["stage"]: row for row in found["stages"]}
    assert told["search"]["count"] == said["search"]["count"] > 0
    assert said["search"]["mean_ms"] == pytest.approx(told["search"]["mean_ms"], rel=0.01)
    assert found["bundles"] == ["tiny/1"]
    assert found["settings"]["traffic"]["attributes that are filtered by"] == "brand, price"
    assert 2.5 < sum(window["seconds"] for window in found["windows"]) < 3.5


def test_what_the_service_lists_is_what_its_file_has(url: str, items: Path) -> None:
    listed, filed = from_service(url, None, 1000), from_file(items)
    assert len(listed.items) == 200  # of two pages
    assert set(listed.items) == set(filed.items)
    assert listed.items[0] == filed.items[0]
    assert listed.filters == filed.filters
    assert len(from_service(url, None, 7).items) == 7


def test_limits_that_are_broken_end_it_with_1_and_are_named(url: str, out: Path) -> None:
    result = load(
        *(url, None, out, "--from", 20, "--to", 60, "--steps", 3, "--seconds", 0.7),
        *("--warm-up", 0, "--p50", "0.001ms", "--p99", "20s", "--read-only"),
    )
    assert result.exit_code == 1
    [line] = [line for line in result.stderr.splitlines() if line.startswith("broken")]
    assert re.fullmatch(r"broken: p50 of recommendations \S+ ms, at most 0.00100 ms", line), line
    found = written(out)
    assert [row["rate"] for row in found["steps"]] == [20, 40, 60]
    assert [row["kind"] for row in found["kinds"]] == ["recommendations"]


def test_the_report_opens_in_a_browser_and_needs_nothing_else(
    url: str, items: Path, out: Path
) -> None:
    load(url, items, out, "--rate", 30, "--seconds", 1.5, "--warm-up", 0)
    command = [program("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    shown = subprocess.run(
        [*command, f"--user-data-dir={out.parent}/profile", out.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert "<h2>Over time</h2>" in shown
    assert shown.count("<svg") == 3
    assert "ms from when it was due" in shown
    assert not re.search(r"(src|href)=\"(?!#)", shown)
    # Nothing of the template was left unclosed, so the last table holds the last row.
    assert shown.rindex("seed") > shown.rindex("</h2>")


def test_a_key_is_sent_and_never_shown(
    bundle: Bundle, items: Path, out: Path, tmp_path: Path
) -> None:
    secrets = {scope: new_secret() for scope in ("write", "all")}
    scopes = {"write": {"read", "write"}, "all": {"read", "write", "metrics"}}
    keys = tmp_path / "keys"
    keys.write_text(
        "".join(
            entry(Key(name=name, sha256=digest(secret), scopes=frozenset(scopes[name])))
            for name, secret in secrets.items()
        )
    )
    file = tmp_path / "key"
    short = ("--rate", 20, "--seconds", 0.5, "--warm-up", 0)
    with served(bundle.path, 1, {"engine": "fake", "keys_file": keys}) as one:
        refused = load(one.url, items, out, *short)
        assert refused.exit_code == 1
        assert "events were answered with 401" in refused.stderr
        for name, told in (("write", False), ("all", True)):
            file.write_text(secrets[name] + "\n")
            done = load(one.url, items, out, *short, "--key-file", file, "--errors", 0)
            assert done.exit_code == 0, done.output
            assert bool(written(out)["server"]["stages"]) is told
            assert ("without the service's metrics" in done.output) is not told
            everything = done.output + out.read_text() + out.with_suffix(".json").read_text()
            assert secrets[name] not in everything


def test_it_finds_the_capacity_of_a_server(server: SlowServer, items: Path, out: Path) -> None:
    """50 a second at best; the limit leaves room for a queue of ten."""
    result = load(
        *(server.url, items, out, "--find", "--from", 30, "--p99", "220ms", "--seconds", 0.6),
        *("--within", 0.5, "--repeats", 1, "--warm-up", 0, "--read-only", "--even"),
    )
    assert result.exit_code == 0, result.output
    found = written(out)
    assert 0.5 <= found["highest_rate"] < 80
    assert f"highest rate that holds: {found['highest_rate']:#.3g} a second" in result.output
    assert {True, False} == {row["holds"] for row in found["steps"]}
    assert found["kinds"][0]["p99_ms"] <= 220
    assert b'"history"' in server.bodies[0]
    assert "/metrics was answered with 501" in found["server"]["refused"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--find", "--rate", 5),
        ("--rate", 5, "--to", 6),
        ("--from", 5),
        ("--p99", "soon"),
        ("--errors", "120%"),
        ("--key-file", "/nowhere"),
    ],
)
def test_what_contradicts_itself_is_refused(
    items: Path, out: Path, arguments: tuple[object, ...]
) -> None:
    result = load("http://127.0.0.1:9", items, out, *arguments)
    assert result.exit_code == 2, result.output
    assert str(arguments[0]) in result.stderr or "--rate" in result.stderr


def test_nobody_is_there(items: Path, out: Path) -> None:
    result = load("http://127.0.0.1:9", items, out)
    assert result.exit_code == 1
    assert result.stderr.startswith("http://127.0.0.1:9: ")
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "expected"), [("100ms", 100.0), ("0.25s", 250.0), ("80", 80.0), (200.0, 200.0)]
)
def test_times(text: object, expected: float) -> None:
    assert milliseconds(text) == expected


@pytest.mark.parametrize("text", ["soon", "-5ms", "0", "nan", "inf"])
def test_no_times(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        milliseconds(text)


@pytest.mark.parametrize(("text", "expected"), [("0.1%", 0.001), ("0.25", 0.25), ("100%", 1.0)])
def test_shares(text: str, expected: float) -> None:
    assert share(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["-1%", "1.5", "none", "nan"])
def test_no_shares(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        share(text)
