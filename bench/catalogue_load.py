"""Clients who ask for recommendations while others change the catalogue, and what they may see.

Everything runs on one loop of one process, so that "acknowledged before it was asked" is a
comparison of two readings of one clock.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import aiohttp

from bench.http_load import PATH

_TIMEOUT_S = 30.0
_PRICE, _DELETE = 0.25, 0.1
"""Shares of changes that only give an item another price, and that remove one; the rest is new."""


@dataclass(slots=True)
class Seen:
    """What came back.

    asked_s:   latencies of recommendations
    written_s: latencies of batches of changes
    fresh_s:   from the moment at which a new item was sent until an answer contained it
    errors:    answers other than 200, and new items that were not found
    stale:     items in answers whose deletion was acknowledged before the answer was asked for
    written, deleted: changes that were acknowledged
    """

    asked_s: list[float] = field(default_factory=list)
    written_s: list[float] = field(default_factory=list)
    fresh_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    written: int = 0
    deleted: int = 0
    wall_s: float = 0.0


def ask_and_change(
    url: str,
    bodies: Sequence[bytes],
    clients: int,
    *,
    seconds: float = 0.0,
    upserts: int = 0,
    at_once: int = 20,
    patterns: Sequence[dict[str, Any]] = (),
    seed: int = 0,
) -> Seen:
    """`clients` ask, each as soon as it has its answer, for `seconds` or until `upserts` have been
    made in batches of `at_once`.

    patterns: attributes of items, whose likes the new ones are
    """
    return asyncio.run(_run(url, bodies, clients, seconds, upserts, at_once, patterns, seed))


async def _run(
    url: str,
    bodies: Sequence[bytes],
    clients: int,
    seconds: float,
    upserts: int,
    at_once: int,
    patterns: Sequence[dict[str, Any]],
    seed: int,
) -> Seen:
    connections = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(url, connector=connections, timeout=timeout) as session:
        scene = _Scene(session, list(patterns), random.Random(seed))
        started, left = time.perf_counter(), cycle(bodies)
        askers = [asyncio.create_task(scene.ask(left)) for _ in range(clients)]
        if upserts:
            while scene.seen.written < upserts:
                await scene.change(min(at_once, upserts - scene.seen.written))
        else:
            await asyncio.sleep(seconds)
        scene.over = True
        await asyncio.gather(*askers)
        scene.seen.wall_s = time.perf_counter() - started
        return scene.seen


class _Scene:
    def __init__(
        self, session: aiohttp.ClientSession, patterns: list[dict[str, Any]], chance: random.Random
    ) -> None:
        self.seen = Seen()
        self.over = False
        self._session = session
        self._patterns = patterns
        self._chance = chance
        self._gone: dict[str, float] = {}
        self._shown: dict[str, None] = {}
        self._made: list[str] = []

    async def ask(self, bodies: "cycle[bytes]") -> None:
        while not self.over:
            began = time.perf_counter()
            answer = await self._send("POST", PATH, next(bodies))
            self.seen.asked_s.append(time.perf_counter() - began)
            self._check(answer, began)

    async def change(self, count: int) -> None:
        """One batch, and whether its new items are recommendable when it is acknowledged."""
        batch = self._batch(count)
        began = time.perf_counter()
        answer = await self._send("PUT", "/v1/items", {"items": batch})
        acknowledged = time.perf_counter()
        self.seen.written_s.append(acknowledged - began)
        for item in answer.get("items", []):
            if item["error"] is not None:
                self.seen.errors.append(str(item["error"]))
        gone = [change["item_id"] for change in batch if change.get("deleted")]
        self._gone |= dict.fromkeys(gone, acknowledged)
        self.seen.deleted += len(gone)
        self.seen.written += len(batch) - len(gone)
        new = [change["item_id"] for change in batch if "title" in change]
        self._made += new
        if new:
            await self._find(new, began)

    async def _find(self, new: list[str], sent: float) -> None:
        # A SID can name several items, so more are asked for than there are.
        wanted = {"history": [new[0]], "k": len(new), "filter": {"item_id": {"in": new}}}
        began = time.perf_counter()
        answer = await self._send("POST", PATH, wanted)
        self._check(answer, began)
        found = {item["item_id"] for item in answer.get("items", [])}
        self.seen.errors += [f"{item_id} is not there" for item_id in set(new) - found]
        self.seen.fresh_s += [time.perf_counter() - sent] * len(found)

    def _batch(self, upserts: int) -> list[dict[str, Any]]:
        changes: list[dict[str, Any]] = []
        for _ in range(upserts):
            if self._made and self._chance.random() < _PRICE:
                price = round(self._chance.uniform(1, 99), 2)
                item_id = self._chance.choice(self._made)
                if item_id not in self._gone:
                    changes.append({"item_id": item_id, "attributes": {"price": price}})
                    continue
            attributes = dict(self._chance.choice(self._patterns))
            number = len(self._made) + len(changes)
            title = f"{attributes.pop('title')} {number}"
            new = f"bench-{self._chance.getrandbits(32):08x}-{number}"
            changes.append({"item_id": new, "title": title, "attributes": attributes})
        # Those go that are being shown: if anything can be seen after its end, it is these.
        shown = [item_id for item_id in self._shown if item_id not in self._gone]
        named = {change["item_id"] for change in changes}
        last = shown[-round(_DELETE * upserts + 0.5) :]
        deleted = [
            {"item_id": item_id, "deleted": True} for item_id in last if item_id not in named
        ]
        return changes + deleted

    def _check(self, answer: dict[str, Any], began: float) -> None:
        for item in answer.get("items", []):
            item_id = item["item_id"]
            self._shown.pop(item_id, None)
            self._shown[item_id] = None
            if self._gone.get(item_id, began) < began:
                self.seen.stale.append(item_id)

    async def _send(self, method: str, path: str, body: Any) -> dict[str, Any]:
        kind = {"data": body} if isinstance(body, bytes) else {"json": body}
        headers = {"Content-Type": "application/json"}
        try:
            async with self._session.request(method, path, headers=headers, **kind) as answer:
                if answer.status == 200:
                    found: dict[str, Any] = await answer.json()
                    return found
                self.seen.errors.append(f"{method} {path}: {answer.status}")
        except (aiohttp.ClientError, TimeoutError) as error:
            self.seen.errors.append(f"{method} {path}: {error!r}")
        return {}
