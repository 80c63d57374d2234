"""A real service with the real engine whose versions are swapped by `sidrec models` while clients
ask: no request fails, and each answer is of the version that it names."""

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from model_store.bundle import Bundle
from model_store.store import Store
from service.cli import cli
from tests.service.stores import copied
from tests.service.test_app_process import Process

CLIENTS = 4
HISTORY = [f"item-{number}" for number in range(40, 50)]


@pytest.fixture
def store(versions: tuple[Bundle, Bundle], tmp_path: Path) -> Store:
    return copied(versions, tmp_path / "store")


@pytest.fixture
def process(store: Store, tmp_path: Path) -> Iterator[Process]:
    environment = {"SIDREC_STATE_DIR": str(tmp_path / "state"), "SIDREC_STORE": str(store.root)}
    process = Process([], environment)
    yield process
    if process.process.poll() is None:
        process.end(signal.SIGKILL)


def models(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["models", *arguments])


@dataclass
class Seen:
    """What all clients saw: when an answer was sent for and there, and of which version it is."""

    answers: list[tuple[float, float, int]] = field(default_factory=list)
    wrong: list[Any] = field(default_factory=list)


def ask_until(over: threading.Event, url: str, sids: dict[int, dict[str, str]], seen: Seen) -> None:
    with httpx.Client(base_url=url, timeout=60) as client:
        while not over.is_set():
            sent = time.monotonic()
            wanted = {"history": HISTORY, "k": 30, "exclude_seen": "nothing"}
            response = client.post("/v1/recommendations", json=wanted)
            ready = client.get("/readyz")
            if response.status_code != 200 or ready.status_code != 200:
                seen.wrong.append((response.text, ready.text))
                continue
            answer = response.json()
            version = answer["bundle"]["version"]
            found = {item["item_id"]: item["sid"] for item in answer["items"]}
            if answer["source"] != "model" or not found.items() <= sids[version].items():
                seen.wrong.append(answer)
            seen.answers.append((sent, time.monotonic(), version))


def test_swaps_while_clients_ask(process: Process, versions: tuple[Bundle, Bundle]) -> None:
    sids = {b.version: dict(zip(b.catalogue.item_ids, b.sids, strict=True)) for b in versions}
    seen, over = Seen(), threading.Event()
    active = [(1, 0.0, 0.0)]
    with process.client() as client, ThreadPoolExecutor(CLIENTS) as pool:
        url = str(client.base_url)
        asking = [pool.submit(ask_until, over, url, sids, seen) for _ in range(CLIENTS)]
        try:
            for number in range(6):
                new, old = (2, 1) if number % 2 == 0 else (1, 2)
                body = {"name": "shop", "version": new}
                assert client.post("/v1/models", json=body).status_code == 201
                began = time.monotonic()
                assert client.post(f"/v1/models/shop/{new}/activate").is_success
                active.append((new, began, time.monotonic()))
                assert client.delete(f"/v1/models/shop/{old}").status_code == 204
        finally:
            over.set()
        for one in asking:
            one.result()
    assert seen.wrong == []
    assert {version for _, _, version in seen.answers} == {1, 2}
    assert len(seen.answers) > 30
    until = [done for _, _, done in active[1:]] + [float("inf")]
    for sent, there, version in seen.answers:
        assert any(
            version == number and begin <= there and sent <= end
            for (number, begin, _), end in zip(active, until, strict=True)
        )
    assert process.end(signal.SIGTERM) == (0, "")


def test_the_commands(process: Process) -> None:
    with process.client() as client:
        url = ["--url", str(client.base_url)]
        loaded = models("load", "shop@2", *url)
        assert (loaded.exit_code, loaded.stderr) == (0, "")
        assert loaded.stdout.startswith("shop@2 is loaded, which took ")
        assert "searches in" in models("warm-up", "shop@2", *url).stdout
        listed = models("list", *url).stdout
        assert [row.split("│")[1:3] for row in listed.splitlines() if "shop@" in row] == [
            [" shop@1  ", " active "],
            [" shop@2  ", "        "],
        ]
        assert models("activate", "shop@2", *url).exit_code == 0
        assert client.get("/readyz").json()["bundle"]["version"] == 2
        assert models("rollback", *url).exit_code == 0
        refused = models("unload", "shop@1", *url)
        assert refused.exit_code == 1
        assert refused.stderr == (
            "This does not fit what is loaded and active: shop 1 is active: activate another one"
            " first\n"
        )
        assert models("unload", "shop@2", *url).stdout == "shop@2 is unloaded\n"
        assert models("load", *url).stdout.startswith("shop@1 is loaded")  # the champion
        assert models("unload", "shop", *url).exit_code == 2
    assert process.end(signal.SIGTERM) == (0, "")
    away = models("list", *url)
    assert away.exit_code == 1
    assert "refused" in away.stderr
