"""A catalogue that was changed again and again against one that was built from what is left."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store import edition
from model_store.catalogue import Catalogue
from model_store.edition import Edition
from model_store.sid import Level, SidSpec, Trie

EXAMPLES = settings(deadline=None, max_examples=15)
SPEC = SidSpec((Level("<a_{}>", 3), Level("<b_{}>", 3), Level("<c_{}>", 2)), extra=True)
SCENES = ("home", "cart")

Item = dict[str, Any]


def items_of(ids: list[str]) -> st.SearchStrategy[list[Item]]:
    """Distinct items on few SIDs, so that they share some, with few counts, so that they tie."""
    count = st.integers(0, 2)
    codes = st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(-1, 1))
    item = st.fixed_dictionaries(
        {
            "item_id": st.sampled_from(ids),
            "sid": codes.map(SPEC.format),
            "title": st.none() | st.text(max_size=2),
            "popularity": count,
            "popularity_by_scene": st.fixed_dictionaries(dict.fromkeys(SCENES, count)),
            "price": st.none() | st.floats(0, 9),
        }
    )
    return st.lists(item, min_size=1, max_size=8, unique_by=lambda item: str(item["item_id"]))


IDS = [f"i{n}" for n in range(14)]
BATCHES = st.lists(
    st.tuples(items_of(IDS), st.lists(st.sampled_from(IDS), max_size=6, unique=True)), max_size=6
)
SCHEMA = Catalogue.from_items(
    [
        {
            "item_id": "",
            "sid": "<a_0><b_0>",
            "title": "",
            "popularity": 0,
            "popularity_by_scene": dict.fromkeys(SCENES, 0),
            "price": 0.5,
        }
        | {"item_id": "x"}
    ],
    SPEC,
).table.schema


def edited(before: Edition, put: list[Item], gone: list[str]) -> Edition:
    rows = [{k: v for k, v in item.items() if k != "sid"} for item in put]
    sids = [item["sid"] for item in put]
    codes = SPEC.parse(sids)
    return before.edited(pa.Table.from_pylist(rows, schema=SCHEMA), sids, codes, gone)


def first(items: list[Item]) -> Edition:
    catalogue = Catalogue.from_items(items, SPEC)
    sids = [str(sid) for sid in SPEC.texts(catalogue.codes).to_pylist()]
    return Edition.first(
        Catalogue(catalogue.table.select(SCHEMA.names).cast(SCHEMA), catalogue.codes), sids
    )


@dataclass
class Plain:
    """What the catalogue should hold, said plainly; `seen` are the SIDs of all ids ever there."""

    items: dict[str, Item] = field(default_factory=dict)
    seen: dict[str, str] = field(default_factory=dict)

    def change(self, put: list[Item], gone: list[str]) -> None:
        for item in put:
            self.items[item["item_id"]] = item
            self.seen[item["item_id"]] = item["sid"]
        for item_id in gone:
            self.items.pop(item_id, None)


def assert_equal(found: Edition, plain: Plain) -> None:
    rows = np.delete(np.arange(len(found)), found.unlisted)
    listed: list[int] = rows.tolist()
    assert found.listed == len(listed) == len(plain.items)
    assert found.problems(SPEC) == []  # in order, unlisted rows and all
    assert {item_id: found.sid_of(item_id) for item_id in IDS} == {
        item_id: plain.seen.get(item_id) for item_id in IDS
    }
    asked = [*IDS, "never"]
    known = [plain.seen[item_id] for item_id in asked if item_id in plain.seen]
    assert found.codes_of(asked).tolist() == SPEC.parse(known).tolist()
    if not plain.items:
        assert [found.popular(scene).tolist() for scene in (None, *SCENES)] == [[]] * 3
        return
    right = first(list(plain.items.values()))
    assert [found.item_ids[row] for row in listed] == list(right.item_ids)
    assert [found.titles[row] for row in listed] == list(right.titles)
    assert [found.sids[row] for row in listed] == list(right.sids)
    assert found.codes[rows].tolist() == right.codes.tolist()
    assert found.table.take(pa.array(listed)).to_pylist() == right.table.to_pylist()
    assert [found.attributes(row) for row in listed] == right.table.to_pylist()
    assert dict(found.row_of) == {found.item_ids[row]: row for row in listed}
    assert found.popularity[rows].tolist() == right.popularity.tolist()
    for scene in (None, *SCENES):
        order = [found.item_ids[row] for row in found.popular(scene)]
        assert order == [right.item_ids[row] for row in right.popular(scene)]
    trie, built = Trie.build(found.codes, trusted=True), Trie.build(found.codes)
    assert trie.find(right.codes).tolist() == built.find(right.codes).tolist()


@pytest.mark.parametrize("most_unlisted", [0, 2, 1000])
def test_changes_one_after_the_other_give_what_is_built_from_scratch(
    most_unlisted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edition, "MOST_UNLISTED", most_unlisted)

    @given(items_of(IDS), BATCHES, st.booleans())
    @EXAMPLES
    def check(start: list[Item], batches: list[tuple[list[Item], list[str]]], dense: bool) -> None:
        plain = Plain()
        plain.change(start, [])
        now, seen = first(start), [(first(start), plain)]
        for put, gone in batches:
            gone = [item_id for item_id in gone if item_id not in {i["item_id"] for i in put}]
            plain = Plain(dict(plain.items), dict(plain.seen))
            plain.change(put, gone)
            now = edited(now, put, gone)
            if dense:
                now = now.compacted()
                assert len(now.ledger) == len(plain.seen)
            assert_equal(now, plain)
            seen.append((now, plain))
        for earlier, then in seen:  # those who still hold it saw nothing of the rest
            assert_equal(earlier, then)

    check()


def test_rows_move_only_where_they_must() -> None:
    item = {"title": "t", "popularity_by_scene": dict.fromkeys(SCENES, 0), "price": 1.0}
    start = [
        {**item, "item_id": f"i{n}", "sid": sid, "popularity": n}
        for n, sid in enumerate(["<a_0><b_0>", "<a_0><b_1>", "<a_0><b_1>"])
    ]
    now = first(start)
    dearer = edited(now, [{**start[2], "price": 2.0}], ["i0"])
    assert dearer.codes is now.codes
    assert (dearer.unlisted.tolist(), dearer.popular().tolist()) == ([0], [1, 2])
    alone = edited(now, [{**start[0], "popularity": 9}], [])
    assert alone.codes is now.codes
    assert alone.popular().tolist() == [0, 1, 2]
    beside = edited(dearer, [{**start[1], "popularity": 9}], [])
    assert beside.codes is not now.codes
    assert (list(beside.item_ids), beside.unlisted.tolist()) == (["i1", "i2"], [])


def test_a_ledger_keeps_few_chunks() -> None:
    item = {"item_id": "i0", "sid": "<a_0><b_0>", "title": "t", "popularity": 1, "price": 1.0}
    item["popularity_by_scene"] = dict.fromkeys(SCENES, 0)
    now = first([item])
    for price in range(100):
        now = edited(now, [{**item, "price": float(price)}], [])
    assert len(now.ledger) == 101
    assert now.ledger.table.column(0).num_chunks < 50
    assert now.attributes(0)["price"] == 99
