"""Changes in Redis, beside a dictionary that takes the same ones."""

import random
from typing import Any

import pytest

from service.catalogue.changes import PAGE, Changes, Record, VersionLost
from service.errors import CatalogueUnavailable
from service.redis_client import Server

AWKWARD = ("plain", '"quoted"', "back\\slash", "a/b", "键盘 🎹", "\x00\x1f\u2028", "{brace}", "[]")
ITEMS = "sidrec:catalogue:{shop}:items"


@pytest.fixture
def changes(client: Server) -> Changes:
    return Changes(client, "shop", "demo/1")


def some(rng: random.Random, number: int) -> list[Record]:
    """Changes of different items, as the planner makes them."""
    found: dict[str, Record] = {}
    for _ in range(number):
        item = f"{rng.choice(AWKWARD)}-{rng.randrange(30)}"
        attributes: dict[str, Any] = {
            rng.choice(AWKWARD): rng.choice([*AWKWARD, 1, 0.1, True, None, [], ["a", "键"], {}])
            for _ in range(rng.randrange(3))
        }
        sid = rng.choice([None, "<a_1><b_2><c_3><d_4>", "<|sid|>"])
        gone = rng.random() < 0.2
        found[item] = Record(item, {} if gone else attributes, gone, sid)
    return list(found.values())


async def everything(changes: Changes, since: int = 0) -> tuple[list[Record], int]:
    found: list[Record] = []
    while True:
        page, since = await changes.read(since)
        found += page
        if len(page) < PAGE:
            return found, since


async def test_what_is_written_is_read_in_its_order(changes: Changes) -> None:
    rng = random.Random(7)
    known: dict[str, Record] = {}
    version = 0
    for size in (1, 0, 3, 40, 7, 25):
        records = some(rng, size)
        before, version = version, await changes.write(version, records) or 0
        assert version == before + len(records)
        for record in records:
            was = known.pop(record.item_id, None)
            sid = record.sid or (was and was.sid)  # none leaves the one that is there
            known[record.item_id] = Record(
                record.item_id, record.attributes, record.deleted, sid or None
            )
        assert await everything(changes) == (list(known.values()), version)
        behind = list(known.values())[len(known) - len(records) :]
        assert await changes.read(before) == (behind, version)


async def test_pages(changes: Changes) -> None:
    records = [Record(f"item-{n}", {"n": n}) for n in range(2 * PAGE + 5)]
    assert await changes.write(0, records) == len(records)
    for since, upto in ((0, PAGE), (PAGE, 2 * PAGE), (2 * PAGE, len(records))):
        assert await changes.read(since) == (records[since:upto], upto)
    assert await changes.read(len(records)) == ([], len(records))
    with pytest.raises(VersionLost):
        await changes.read(len(records) + 1)


async def test_who_has_not_seen_all_writes_nothing(changes: Changes) -> None:
    assert await changes.write(0, [Record("one", {})]) == 1
    assert await changes.write(0, [Record("two", {})]) is None
    assert await changes.write(0, []) is None
    assert await changes.write(1, []) == 1
    assert await everything(changes) == ([Record("one", {})], 1)


@pytest.mark.parametrize("content", [None, "", "[1]", "{", b"\xff{}"])
async def test_what_others_wrote_there(
    changes: Changes, client: Server, content: str | bytes | None
) -> None:
    await changes.write(0, [Record("one", {}), Record("two", {})])
    if content is None:
        await client.hdel(ITEMS, "one")
    else:
        await client.hset(ITEMS, "one", content)
    with pytest.raises(CatalogueUnavailable, match="sidrec wrote"):
        await changes.read(0)
    assert await changes.read(1) == ([Record("two", {})], 2)
