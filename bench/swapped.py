"""Two versions of a bundle that cannot be mistaken for each other, swapped under load."""

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.connection import Connection, NotServing
from bench.http_load import Reply
from model_store.bundle import MODEL, Bundle
from model_store.store import Store, create_bundle

_POLL_S = 0.1

Sids = dict[int, dict[str, str]]
"""Per version the SID of each item."""


def two_versions(bundle: Bundle, root: Path) -> Sids:
    """A store below `root` with the bundle as version 1, champion, and as version 2 the same model
    whose items have changed their SIDs with one another: an item with the wrong SID, or a SID with
    the wrong item, gives an answer away that mixes them."""
    store = Store(root)
    mixed = np.random.default_rng(7).permutation(len(bundle.catalogue))
    ids = bundle.catalogue.item_ids
    quantizer = bundle.path / "quantizer"
    of: Sids = {}
    for version, sids in ((1, bundle.sids), (2, [bundle.sids[row] for row in mixed])):
        rows = zip(bundle.catalogue.table.to_pylist(), sids, strict=True)
        items = root / f"items-{version}.jsonl"
        items.parent.mkdir(parents=True, exist_ok=True)
        items.write_text("".join(json.dumps({**row, "sid": sid}) + "\n" for row, sid in rows))
        create_bundle(
            store,
            name=bundle.name,
            model=bundle.path / MODEL,
            items=items,
            prompt=bundle.manifest.prompt,
            quantizer=quantizer if quantizer.is_dir() else None,
            training=bundle.manifest.training,
        )
        of[version] = dict(zip(ids, sids, strict=True))
    store.promote(bundle.name, 1)
    return of


@dataclass(frozen=True, slots=True)
class Swap:
    """One change of the active version: when it was asked for and acknowledged, and what the whole
    took, in seconds."""

    version: int
    asked: float
    done: float
    load_s: float
    unload_s: float

    @property
    def began(self) -> float:
        """When it was asked to load the version."""
        return self.asked - self.load_s

    @property
    def seconds(self) -> float:
        """Until the other version was unloaded."""
        return self.done + self.unload_s - self.began


@dataclass(slots=True)
class Watched:
    """How often `/readyz` was asked, and what it said when it was not ready."""

    asked: int = 0
    unready: list[str] = field(default_factory=list)


def swap_models(url: str, name: str, swaps: int, every_s: float) -> list[Swap]:
    """Loads the version that is not active, activates it and unloads the other, again and again,
    beginning every `every_s`. Raises `NotServing` where a step is refused."""
    made: list[Swap] = []
    for number in range(swaps):
        began = time.perf_counter()
        new, old = (2, 1) if number % 2 == 0 else (1, 2)
        with Connection(url) as connection:  # one that is idle between swaps would be closed
            made.append(swap_model(connection, name, new, old))
        time.sleep(max(0.0, began + every_s - time.perf_counter()))
    return made


def swap_model(connection: Connection, name: str, new: int, old: int) -> Swap:
    """Loads one version, activates it and unloads the other. Raises `NotServing` where a step is
    refused."""
    began = time.perf_counter()
    wanted = json.dumps({"name": name, "version": new}).encode()
    _step(connection, "POST", "/v1/models", wanted)
    asked = time.perf_counter()
    _step(connection, "POST", f"/v1/models/{name}/{new}/activate")
    done = time.perf_counter()
    _step(connection, "DELETE", f"/v1/models/{name}/{old}")
    return Swap(new, asked, done, asked - began, time.perf_counter() - done)


@contextmanager
def readiness(url: str) -> Iterator[Watched]:
    """Asks `/readyz` all the time, until left."""
    watched, over = Watched(), threading.Event()

    def watch() -> None:
        with Connection(url) as connection:
            while not over.wait(_POLL_S):
                status, content = connection.ask("GET", "/readyz")
                watched.asked += 1
                if status != 200:
                    watched.unready.append(content.decode())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield watched
    finally:
        over.set()
        thread.join()


def inconsistent(replies: Sequence[Reply], swaps: Sequence[Swap], sids: Sids) -> list[str]:
    """Answers that name a version which was not active at any moment between their being sent and
    received, or have an item that is not so in the version they name; one line each."""
    times = active(swaps)
    return [
        why for reply in replies if (why := _wrong(reply, json.loads(reply.content), times, sids))
    ]


def active(swaps: Sequence[Swap]) -> Mapping[int, list[tuple[float, float]]]:
    """When each version may have been active: from when it was asked for until it was acknowledged
    that another one is."""
    begins = [(1, 0.0), *((swap.version, swap.asked) for swap in swaps)]
    ends = [*(swap.done for swap in swaps), float("inf")]
    times: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for (version, begin), end in zip(begins, ends, strict=True):
        times[version].append((begin, end))
    return times


def _wrong(
    reply: Reply,
    answer: Mapping[str, Any],
    times: Mapping[int, Sequence[tuple[float, float]]],
    sids: Sids,
) -> str | None:
    version = answer["bundle"]["version"]
    if not any(begin <= reply.there and reply.due <= end for begin, end in times[version]):
        return f"version {version} was not active when {answer['request_id']} was answered"
    for item in answer["items"]:
        if sids[version].get(item["item_id"]) != item["sid"]:
            return f"{item['item_id']} is not {item['sid']} in version {version}"
    return None


def _step(connection: Connection, method: str, path: str, body: bytes = b"") -> None:
    status, content = connection.ask(method, path, body)
    if status >= 300:
        raise NotServing(f"{method} {path} was answered with {status}: {content.decode()}")
