"""Catalogues that share a Redis, as processes do: what was acknowledged is in force, everywhere."""

import asyncio
import random
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis

from model_store.bundle import Bundle
from model_store.sid import END, Trie
from service.catalogue.assign import Assigner
from service.catalogue.changes import Record
from service.catalogue.live import Done, LiveCatalogue
from service.catalogue.plan import Change, Delete, Outcome, Planner, Put
from service.catalogue.snapshot import Snapshot
from service.eligibility.policy import Policy
from service.engine import Query
from service.errors import CatalogueUnavailable, InvalidInput
from service.redis_client import connect
from tests.service.catalogue.conftest import Open

KEYBOARD: dict[str, Any] = {
    "title": "Veltrix mechanical keyboard 87 keys",
    "category": "keyboards",
    "price": 59.0,
}
SID = "<a_1><b_2><c_3><d_4>"


async def put(
    live: LiveCatalogue, item_id: str, *, sid: str | None = None, **values: Any
) -> Outcome:
    [outcome] = (await live.change([Put(item_id, values, sid)])).outcomes
    if isinstance(outcome, InvalidInput):
        raise outcome
    return outcome


async def becomes_true(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


async def agreed(*lives: LiveCatalogue) -> None:
    """Waits until all have the same version."""
    await becomes_true(lambda: len({live.current.version for live in lives}) == 1)


def contents(snapshot: Snapshot) -> dict[str, object]:
    """All there is to a catalogue, row by row, those of gone items aside."""
    catalogue = snapshot.catalogue
    gone = set(catalogue.unlisted.tolist())
    rows = [row for row in range(len(catalogue)) if row not in gone]
    return {
        "items": [(catalogue.attributes(row), catalogue.sids[row]) for row in rows],
        "popular": [catalogue.item_ids[row] for row in catalogue.popular()],
    }


def assert_sound(live: LiveCatalogue, bundle: Bundle) -> None:
    """Columns, trie and rows speak of the same items."""
    now = live.current
    assert now.catalogue.problems(bundle.spec) == []
    assert bundle.spec.parse(list(now.catalogue.sids)).tolist() == now.catalogue.codes.tolist()
    for name in ("first_row", "first_child", "code"):
        built = getattr(Trie.build(now.catalogue.codes), name)
        assert [part.tolist() for part in getattr(now.trie, name)] == [
            part.tolist() for part in built
        ]


async def found(live: LiveCatalogue, width: int = 5000) -> set[str]:
    """The items that a search wide enough for all finds."""
    now = live.current
    eligible = await now.eligible()
    beams = await live._engine.search(Query([1, 2, 3], width, eligible, trie=now.searched))
    rows = [
        row
        for beam in beams
        for row in (
            beam.rows if eligible is None else eligible.rows(beam.rows.start, beam.rows.stop)
        )
    ]
    return {now.catalogue.item_ids[row] for row in rows}


async def test_a_new_item_is_there_when_it_is_acknowledged(open_live: Open, demo: Bundle) -> None:
    live = await open_live()
    before = live.current
    outcome = await put(live, "new", **KEYBOARD)
    assert (outcome.status, live.current.version) == ("added", 1)
    now = live.current
    assert now.catalogue.titles[now.catalogue.row_of["new"]] == KEYBOARD["title"]
    assert "new" in await found(live)
    assert outcome.sid == now.catalogue.sid_of("new")
    assert_sound(live, demo)
    # Whoever began before still sees what there was then.
    assert "new" not in before.catalogue.row_of
    assert before.catalogue.sid_of("new") is None
    assert (before.searched.n_items, now.searched.n_items) == (2600, 2601)


async def test_a_text_gets_the_sid_that_the_quantizer_gives_it(
    open_live: Open, demo: Bundle
) -> None:
    live = await open_live()
    text = ("title", "brand", "category", "department")
    item = {name: demo.catalogue.attributes(700)[name] for name in text}
    base = demo.catalogue.codes[700, :4].tolist()
    behind = demo.trie.codes_behind(base)
    free = list(range(max(behind) + 1, demo.spec.levels[-1].size))
    assert free
    numbers = []
    for number in range(len(free) + 2):
        sid = (await put(live, f"twin-{number}", **item)).sid
        codes = demo.spec.parse([str(sid)])[0].tolist()
        assert codes[:4] == base
        numbers.append(codes[4])
    # The SID is taken, so each has the next number; where these end, a SID is shared.
    assert numbers == [*free, END, END]
    assert_sound(live, demo)
    assert {f"twin-{number}" for number in range(len(numbers))} <= await found(live)


async def test_a_deleted_item_is_in_no_answer_that_begins_later(open_live: Open) -> None:
    live = await open_live()
    await put(live, "new", **KEYBOARD)
    before = live.current
    done = await live.change([Delete("new"), Delete("p00001"), Delete("never")])
    assert [outcome.status for outcome in done.outcomes] == ["deleted", "deleted", "absent"]  # type: ignore[union-attr]
    assert live.current.searched is before.searched  # nothing was rebuilt
    assert not {"new", "p00001"} & await found(live)
    rows = live.current.catalogue.popular().tolist()
    assert not {"new", "p00001"} & {live.current.catalogue.item_ids[row] for row in rows}
    assert live.current.catalogue.sid_of("new") is not None  # histories may speak of it
    assert (await put(live, "p00001", title="back", popularity=10**6)).status == "added"
    now = live.current.catalogue
    row = now.popular().tolist()[0]
    assert now.item_ids[row] == "p00001"
    assert now.attributes(row)["price"] is None  # a new item, of which only the title is known
    assert now.attributes(row)["title"] == "back"


async def test_attributes_change_and_the_rest_stays(open_live: Open, demo: Bundle) -> None:
    live = await open_live()
    item = demo.catalogue.attributes(5)
    item_id = str(item["item_id"])
    outcome = await put(live, item_id, price=0.5)
    assert (outcome.status, outcome.sid) == ("changed", demo.sids[5])
    assert live.current.catalogue.attributes(5) == {**item, "price": 0.5}
    assert live.current.searched is demo.trie
    assert (await put(live, item_id, price=0.5)).status == "unchanged"
    assert (await put(live, item_id, sid=demo.sids[5])).status == "unchanged"
    assert live.current.version == 1
    assert (await put(live, item_id, title=None, price=None)).status == "changed"
    assert live.current.catalogue.attributes(5) == {**item, "price": None, "title": None}
    assert (await put(live, item_id, sid=SID)).sid == SID
    moved = live.current.catalogue
    assert moved.sids[moved.row_of[item_id]] == SID
    assert_sound(live, demo)


async def test_what_one_process_is_told_reaches_the_others_and_survives_them(
    open_live: Open, demo: Bundle
) -> None:
    one, other = await open_live(), await open_live()
    await put(one, "new", **KEYBOARD)
    await one.change([Delete("p00001"), Put("p00002", {"price": 1.0})])
    await agreed(one, other)
    assert contents(one.current) == contents(other.current)
    again = await open_live()
    assert again.complete
    assert again.current.version == 3
    assert contents(again.current) == contents(one.current)


async def test_items_get_sids_of_a_bundle_that_comes_later(open_live: Open, demo: Bundle) -> None:
    one = await open_live()
    first = await put(one, "new", **KEYBOARD)
    await put(one, "own", sid=SID)
    later = await open_live(name="demo/2")
    assert later.current.catalogue.sid_of("new") == first.sid
    assert later.current.catalogue.sid_of("own") is None  # it has no text, and its SID was of 1
    await put(one, "newer", **KEYBOARD)
    await agreed(one, later)
    assert later.current.catalogue.sid_of("newer") is not None
    assert later.current.catalogue.sid_of("new") == first.sid


def test_a_sid_of_other_levels_is_forgotten_and_the_rest_is_kept(demo: Bundle) -> None:
    planner = Planner(demo, Assigner.load(demo))
    good, none = Record("good", {}, sid=SID), Record("none", {}, deleted=True)
    bad = Record("bad", {"title": "x"}, sid="<x_1><b_2>")
    assert planner.usable([good, none]) == [good, none]
    assert planner.usable([good, bad, none]) == [good, replace(bad, sid=None), none]


async def test_work_on_many_items_never_stops_the_event_loop(
    open_live: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that is loaded reads all changes there ever were, while others answer."""
    ran_on: dict[str, set[int]] = defaultdict(set)

    def noted(name: str) -> Callable[..., Any]:
        method = getattr(Planner, name)

        def call(*arguments: Any) -> Any:
            ran_on[name].add(threading.get_ident())
            return method(*arguments)

        return call

    methods = ("refused", "plan", "usable", "complete", "edition")
    for name in methods:
        monkeypatch.setattr(Planner, name, noted(name))
    one = await open_live()
    await one.change([Put(f"new{i}", KEYBOARD) for i in range(20)])
    assert contents((await open_live()).current) == contents(one.current)
    assert set(ran_on) == set(methods)
    assert not any(threading.get_ident() in threads for threads in ran_on.values())


@dataclass
class Expected:
    """What should be there, said plainly: what was acknowledged, in the order of the versions."""

    prices: dict[str, float | None] = field(default_factory=dict)

    def change(self, change: Change) -> None:
        if isinstance(change, Delete):
            self.prices.pop(change.item_id, None)
        else:
            self.prices[change.item_id] = change.attributes["price"]


async def test_many_writers_in_several_processes(open_live: Open, demo: Bundle) -> None:
    lives = [await open_live() for _ in range(3)]
    ids = [f"n{number}" for number in range(40)]
    written: list[tuple[int, int, list[Change], Done]] = []

    async def write(number: int) -> None:
        chance = random.Random(number)
        for step in range(6):
            item_id = f"w{number}-{chance.choice(ids)}"
            title = f"{chance.choice(['red', 'blue'])} {chance.choice(['lamp', 'mouse'])}"
            values = {"title": title, "price": chance.random()}
            changes: list[Change] = [Put(item_id, values)]
            if chance.random() < 0.3:
                changes.append(Delete(item_id))
            live = chance.choice(lives)
            done = await live.change(changes)
            assert live.current.version >= done.version
            written.append((number, step, changes, done))

    await asyncio.gather(*(write(number) for number in range(8)))
    await agreed(*lives)
    expected = Expected()
    for _, _, changes, _ in sorted(written, key=lambda entry: entry[:2]):  # writers share no item
        for change in changes:
            expected.change(change)
    for live in lives:
        now = live.current.catalogue
        prices = {
            item_id: now.attributes(row)["price"]
            for item_id, row in now.row_of.items()
            if item_id.startswith("w")
        }
        assert prices == expected.prices
        assert_sound(live, demo)
    first = contents(lives[0].current)
    assert all(contents(live.current) == first for live in lives[1:])
    # SIDs were given away by one at a time: an item goes without a number of its own only where
    # all numbers have been given.
    now = lives[0].current.catalogue
    _, first_of, counts = np.unique(now.codes, axis=0, return_index=True, return_counts=True)
    for row in first_of[counts > 1]:
        same = (now.codes[:, :4] == now.codes[row, :4]).all(axis=1)
        assert now.codes[same, 4].max() == demo.spec.levels[-1].size - 1


async def test_refusals_name_the_field_and_hinder_no_other(open_live: Open, bundle: Bundle) -> None:
    live = await open_live()
    puts = [
        Put("a", {"price": 3.0}),
        Put("b", KEYBOARD),
        Put("c", {**KEYBOARD, "colour": "red"}),
        Put("d", {**KEYBOARD, "price": "cheap"}),
        Put("e", KEYBOARD, "<a_1><b_2>"),
        Put("f", {}, "<a_999><b_2><c_3><d_4>"),
        Put("g", {**KEYBOARD, "title": "   "} | {"category": None}),
        Put("b", {"price": 1.0}),
    ]
    done = await live.change(puts)
    fields = [o.field if isinstance(o, InvalidInput) else o.status for o in done.outcomes]
    assert fields == [
        "title",
        "added",
        "attributes.colour",
        "attributes.price",
        "sid",
        "sid",
        "title",
        "changed",
    ]
    assert (live.current.version, live.current.catalogue.listed) == (1, 2601)
    plain = await open_live(bundle)  # without a quantizer
    with pytest.raises(InvalidInput, match="sid: bundle tiny 1 has no quantizer"):
        await put(plain, "x", title="a text")
    assert (await put(plain, "x", sid="<a_0><b_0><c_0>")).status == "added"


async def test_a_redis_that_lost_its_changes(open_live: Open, client: Redis, demo: Bundle) -> None:
    live = await open_live()
    await put(live, "new", **KEYBOARD)
    await live.change([Delete("p00001")])
    await client.flushall()
    await becomes_true(lambda: live.current.version == 0)
    assert contents(live.current) == contents(Snapshot.first(demo, live._engine, Policy()))
    assert (await put(live, "newer", **KEYBOARD)).status == "added"


async def test_without_redis_nothing_is_acknowledged(open_live: Open) -> None:
    nobody = connect("redis://127.0.0.1:1", timeout_ms=200)
    live = await open_live(redis=nobody)
    assert not live.complete
    with pytest.raises(CatalogueUnavailable):
        await put(live, "new", **KEYBOARD)
    assert live.current.version == 0
    await nobody.aclose()


async def test_every_item_may_go(open_live: Open, bundle: Bundle) -> None:
    live = await open_live(bundle)
    everything = list(bundle.catalogue.item_ids)
    await live.change([Delete(item_id) for item_id in everything])
    assert (live.current.catalogue.listed, await found(live)) == (0, set())
    await put(live, "only", sid="<a_0><b_0><c_0>")
    assert await found(live) == {"only"}
    assert_sound(live, bundle)
