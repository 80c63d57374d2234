"""What a soak asks for, and what every answer owes: no HTTP, no clock of its own.

The mix is that of a shop: mostly known users, some nobody knows, some who bring their history,
filters, similar items, batches, and meanwhile events and changes of the catalogue. What was refused
is asked again in the next place of its kind, until it is acknowledged.
"""

import json
import random
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from bench import shapes
from bench.swapped import Sids
from bench.users import K, Users
from model_store.bundle import Bundle

MIX = {
    "user": 0.56,
    "writer": 0.14,
    "carried": 0.06,
    "cold": 0.04,
    "filter": 0.05,
    "similar": 0.05,
    "batch": 0.01,
    "events": 0.08,
    "items": 0.01,
}
"""Shares of all requests by kind. "user" is one with a stored history, "writer" one whose history
grows, "carried" one that brings its own, "cold" one that nobody has heard of."""

_WRITERS = 40
_PER_WRITER = 120
"""Events until somebody new comes; fewer than a history keeps, so that each can be read back."""
_AT_ONCE = 3
_FIRST_EVENT = 1_750_000_000

_POOL = 300
_GO, _COME, _PRICED = 3, 3, 4
"""Of one batch of changes: items that go, that come, and that get another price. Those that come
have been there before, so that a catalogue stays as large as it is."""
_LEFT_OUT = {"item_id", "title", "popularity", "popularity_by_scene", "sid"}


@dataclass(slots=True)
class Request:
    """One request; `about` is what it owes: events, changes of items, or new items to be found."""

    kind: str
    method: str
    path: str
    body: bytes
    asked: float = 0.0
    about: list[dict[str, Any]] = field(default_factory=list)


class Work:
    """The requests of one soak, in the order of `MIX`, and the account of what was acknowledged.

    acknowledged: per user the ids of events
    wrong:        a line for each answer that is not what it should be
    """

    def __init__(self, bundle: Bundle, users: int, sids: Sids, seed: int = 7) -> None:
        self.acknowledged: dict[str, set[str]] = defaultdict(set)
        self.wrong: list[str] = []
        self.written = self.deleted = self.found = 0
        self._users = Users(shapes.popular(bundle), users)
        self._sids = sids
        self._chance = random.Random(seed)
        self._again: dict[str, deque[Request]] = {"events": deque(), "items": deque()}
        self._to_find: deque[Request] = deque()
        self._strangers = count()
        self._writers = [f"soak-{number}" for number in range(_WRITERS)]
        self._next_writer = count(_WRITERS)
        self._sent: dict[str, int] = defaultdict(int)
        # The first ones leave one after the other, so that histories are as long at any time.
        self._most = {w: self._chance.randrange(_PER_WRITER) for w in self._writers}
        table = bundle.catalogue.table
        rows = table.slice(0, _POOL).to_pylist()
        self._titles = [str(row["title"]) for row in rows]
        self._like = [{k: v for k, v in row.items() if k not in _LEFT_OUT} for row in rows]
        brands = sorted({row["brand"] for row in rows if row.get("brand")})
        self._filters = [{"brand": {"in": brands[at : at + 5]}} for at in range(0, len(brands), 5)]
        self._away = deque(range(len(rows)))
        self._there: deque[int] = deque()
        self._gone: dict[str, float] = {}

    def next(self) -> Request:
        """The next request to send."""
        if self._to_find:
            return self._to_find.popleft()
        kind = self._chance.choices(list(MIX), list(MIX.values()))[0]
        if self._again.get(kind):
            return self._again[kind].popleft()
        if kind == "events":
            return self._events()
        if kind == "items":
            return self._changes()
        if kind == "similar":
            item_id = self._item()
            return _post(kind, f"/v1/items/{item_id}/similar", {"k": K})
        if kind == "batch":
            asked = [self._ask("user") for _ in range(4)]
            return _post(kind, "/v1/recommendations/batch", {"requests": asked})
        return _post(kind, "/v1/recommendations", self._ask(kind))

    def answered(self, request: Request, there: float, answer: Mapping[str, Any]) -> None:
        """Takes an answer with status 200, received at the moment `there`; what is wrong with it
        goes to `wrong`."""
        match request.kind:
            case "events":
                self._acknowledge(request, answer)
            case "items":
                self._changed(request, there, answer)
            case "batch":
                for one in answer["results"]:
                    if one["status"] != 200:
                        self.wrong.append(f"in a batch: {one['problem']}")
                    else:
                        self._check(request, one["answer"])
            case _:
                self._check(request, answer)

    def refused(self, request: Request) -> None:
        """Keeps what must be said again: nothing of it was acknowledged."""
        if request.kind in self._again:
            self._again[request.kind].append(request)

    def _ask(self, kind: str) -> dict[str, Any]:
        asked: dict[str, Any] = {"k": K}
        user = self._chance.choice(self._known) if kind != "cold" else 0
        if kind == "cold":
            asked["user_id"] = f"stranger-{next(self._strangers)}"
        elif kind == "carried":
            asked["history"] = self._users.histories[user]
        elif kind == "writer" and (known := [w for w in self._writers if self.acknowledged[w]]):
            asked["user_id"] = self._chance.choice(known)
        else:
            asked["user_id"] = self._users.ids[user]
        if kind == "filter" and self._filters:
            asked["filter"] = self._chance.choice(self._filters)
        return asked

    def _events(self) -> Request:
        place = self._chance.randrange(_WRITERS)
        user = self._writers[place]
        first = self._sent[user]
        self._sent[user] += _AT_ONCE
        if self._sent[user] >= self._most.get(user, _PER_WRITER):
            self._writers[place] = f"soak-{next(self._next_writer)}"
        events = [
            {
                "event_id": f"e{number}",
                "user_id": user,
                "item_id": self._item(),
                "type": "click",
                "timestamp": _FIRST_EVENT + 60 * number,
            }
            for number in range(first, first + _AT_ONCE)
        ]
        return _post("events", "/v1/events", {"events": events}, events)

    def _acknowledge(self, request: Request, answer: Mapping[str, Any]) -> None:
        for event in request.about:
            self.acknowledged[event["user_id"]].add(event["event_id"])
        if answer["accepted"] + answer["duplicates"] != len(request.about):
            self.wrong.append(f"{len(request.about)} events were answered with {answer}")

    def _changes(self) -> Request:
        come = [self._away.popleft() for _ in range(_COME)]
        go = [self._there.popleft() for _ in range(_GO)] if len(self._there) > _POOL // 2 else []
        changes: list[dict[str, Any]] = [
            {
                "item_id": f"soak-{number}",
                "title": f"{self._titles[number]} {number}",
                "attributes": self._like[number],
            }
            for number in come
        ]
        changes += [{"item_id": f"soak-{number}", "deleted": True} for number in go]
        priced = {self._item() for _ in range(_PRICED)}
        changes += [
            {"item_id": item, "attributes": {"price": round(self._chance.uniform(1, 99), 2)}}
            for item in priced
        ]
        for number in come:
            self._gone.pop(f"soak-{number}", None)
        body = json.dumps({"items": changes}).encode()
        return Request("items", "PUT", "/v1/items", body, about=changes)

    def _changed(self, request: Request, there: float, answer: Mapping[str, Any]) -> None:
        self.wrong += [str(item["error"]) for item in answer["items"] if item["error"]]
        new = [change["item_id"] for change in request.about if "title" in change]
        gone = [change["item_id"] for change in request.about if change.get("deleted")]
        self._there.extend(_number(item_id) for item_id in new)
        self._away.extend(_number(item_id) for item_id in gone)
        self._gone |= dict.fromkeys(gone, there)
        self.written += len(request.about) - len(gone)
        self.deleted += len(gone)
        wanted = {"history": [new[0]], "k": len(new), "filter": {"item_id": {"in": new}}}
        about = [{"item_id": item_id} for item_id in new]
        self._to_find.append(_post("found", "/v1/recommendations", wanted, about))

    def _check(self, request: Request, answer: Mapping[str, Any]) -> None:
        shown = {item["item_id"]: item["sid"] for item in answer["items"]}
        version = answer["bundle"]["version"]
        sids = self._sids[version]
        for item_id, sid in shown.items():
            if sids.get(item_id, sid) != sid:
                self.wrong.append(f"{item_id} is not {sid} in version {version}")
            if self._gone.get(item_id, request.asked) < request.asked:
                self.wrong.append(f"{item_id} was shown after it was deleted")
        wanted = len(request.about) or K
        if len(shown) < min(wanted, answer["eligible_items"]):
            self.wrong.append(f"{len(shown)} items, {answer['eligible_items']} were eligible")
        if request.kind == "found":
            missing = {item["item_id"] for item in request.about} - shown.keys()
            self.wrong += [f"{item_id} is new and was not found" for item_id in sorted(missing)]
            self.found += len(request.about) - len(missing)

    @property
    def _known(self) -> range:
        return range(len(self._users.ids))

    def _item(self) -> str:
        return self._chance.choice(self._users.histories[self._chance.choice(self._known)])


def _post(
    kind: str, path: str, body: Mapping[str, Any], about: list[dict[str, Any]] | None = None
) -> Request:
    return Request(kind, "POST", path, json.dumps(body).encode(), about=about or [])


def _number(item_id: str) -> int:
    return int(item_id.removeprefix("soak-"))
