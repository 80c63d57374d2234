"""The soak in its short form, against real processes, and that it sees what is not promised."""

import json
from collections.abc import Iterator
from typing import Any, cast

import pytest

from bench.served import Served
from bench.soak_judged import by_minute, judge, unpromised
from bench.soak_load import Account, Response
from bench.soak_work import Request, Work
from bench.soak_world import Outage, Refused, Sample, World
from bench.swapped import Swap
from model_store.bundle import Bundle
from service.settings import Settings
from tests.bench.conftest import Measure

OUTAGE = Outage(began=100.0, ended=105.0, killed=True)


def test_a_short_soak(measure: Measure) -> None:
    found = measure(
        "soak",
        *("--minutes", 0.4, "--swap", 5, "--outage", 7, "--away", 1, "--share", 0.4),
        *("--saturate", 2, "--users", 50, "--in-flight", 8, "--sample", 0.5),
        *("--max-wait-ms", 0),  # a test machine that does other things too refuses nobody
    )
    [row] = found["rows"]
    assert found["broken"] == []
    assert row["swaps"] + row["swaps_refused"] >= 3
    assert row["swaps"] >= 1
    assert min(row["killed"], row["shut_down"]) >= 1
    assert row["acknowledged"] > 10
    assert row["lost"] == 0
    assert row["requests"] == sum(row["kinds"].values()) == sum(row["outcomes"].values())
    assert row["outcomes"]["200 history_unavailable"] > 0
    assert row["outcomes"]["200 model"] > row["requests"] / 3
    assert row["rss_growth"] is None  # half a minute says nothing of it


@pytest.mark.parametrize(
    "response",
    [
        Response("user", 10, 11, 200, "model", 1),
        Response("cold", 10, 11, 200, "no_history", 1),
        Response("events", 10, 11, 200, "acknowledged"),
        Response("user", 101, 102, 200, "history_unavailable", 1),
        Response("batch", 99, 100.5, 200, "history_unavailable"),  # on its way when Redis went
        Response("events", 106, 107, 503, "history-unavailable"),  # just before it was noticed
        Response("items", 101, 102, 503, "catalogue-unavailable"),
    ],
)
def test_what_is_promised(response: Response) -> None:
    assert unpromised([response], [OUTAGE]) == []


@pytest.mark.parametrize(
    "response",
    [
        Response("user", 10, 11, 200, "history_unavailable", 1),
        Response("user", 116, 117, 200, "history_unavailable", 1),  # it should have noticed
        Response("user", 101, 102, 503, "history-unavailable"),
        Response("user", 10, 11, 503, "overloaded"),
        Response("similar", 101, 102, 200, "history_unavailable", 1),
        Response("user", 10, 11, 200, "no_history", 1),
        Response("events", 101, 102, 503, "history-unavailable without Retry-After"),
        Response("events", 10, 11, 503, "history-unavailable"),
        Response("items", 101, 102, 500, "internal"),
        Response("user", 101, 102, 0, "ServerDisconnectedError()"),
    ],
)
def test_what_is_not(response: Response) -> None:
    [line] = unpromised([response, response], [OUTAGE])
    assert line.startswith(f"2 times {response.kind}: {response.status} {response.how}")


def account(*responses: Response, lost: tuple[str, ...] = ()) -> Account:
    given = responses or (Response("user", 10, 11, 200, "model", 1),)
    return Account(list(given), [], 1, list(lost), 1, 1, 1, 0.0, 0.0)


@pytest.fixture
def world() -> World:
    """In which nothing has happened yet."""
    return World(cast(Served, None))


def samples(*minutes: tuple[float, int]) -> Iterator[Sample]:
    """A few of each minute, with so many MB and open files beside connections."""
    for minute, (size, files) in enumerate(minutes):
        for second in (0, 20, 40, 59.9):
            rss = round(size * 2**20)
            yield Sample(60 * minute + second, rss, rss, files + 25, 20, 5, 9, None)


def test_nothing_broken(world: World) -> None:
    world.samples += samples((300, 40), (500, 40), (510, 41), (490, 40))
    world.swaps += [Swap(2, 50, 51, 0.1, 0.1)]
    world.outages += [OUTAGE]
    world.refused += [Refused(102, 103, "without Redis it is not known what has changed")]
    judged = judge(account(Response("user", 70, 71, 200, "model", 2)), world, 60.0, [])
    assert judged.broken == []
    assert judged.row["rss_growth"] == pytest.approx(0.02)
    assert judged.row["rss_last"] == pytest.approx(-0.02)
    assert judged.row["files"] == [40, 40]


def test_memory_and_files_that_grow(world: World) -> None:
    world.samples += samples((500, 40), (510, 44), (516, 43))
    assert judge(account(), world, 0.0, []).broken == [
        "memory grew by 3.2%",
        "open files went from 40 to 44",
    ]
    assert [minute["files"] for minute in by_minute(world.samples, 0.0)] == [65, 69, 68]


def test_everything_else_that_breaks_a_promise(world: World) -> None:
    world.failed += ["RedisStartFailed()"]
    world.refused += [Refused(10, 11, "refused with Redis there")]
    world.swaps += [Swap(2, 50, 51, 0.1, 0.1)]
    late = Response("user", 60, 61, 200, "model", 1)
    broken = judge(account(late, lost=("soak-1/e7",)), world, 0.0, ["not ready"]).broken
    assert broken == [
        "RedisStartFailed()",
        "refused with Redis there",
        "not ready",
        "soak-1/e7 was acknowledged and is lost",
        "1 answers name a version that was not active",
    ]


@pytest.fixture(scope="module")
def demo() -> Bundle:
    return Bundle.load(Settings.model_fields["bundle"].default)


@pytest.fixture
def work(demo: Bundle) -> Work:
    sids = dict(zip(demo.catalogue.item_ids, demo.sids, strict=True))
    return Work(demo, 20, {1: sids})


def of_kind(work: Work, kind: str) -> Request:
    return next(request for request in iter(work.next, None) if request.kind == kind)


def shown(*items: tuple[str, str], eligible: int | None = None) -> dict[str, Any]:
    return {
        "bundle": {"name": "demo", "version": 1},
        "items": [{"item_id": item, "sid": sid} for item, sid in items],
        "eligible_items": len(items) if eligible is None else eligible,
    }


def test_items_of_another_version_and_too_few(work: Work, demo: Bundle) -> None:
    item, sid = demo.catalogue.item_ids[0], demo.sids[0]
    asked = of_kind(work, "user")
    work.answered(asked, 1.0, shown((item, sid)))
    assert work.wrong == []
    work.answered(asked, 1.0, shown((item, "<a_0>"), eligible=2))
    assert work.wrong == [f"{item} is not <a_0> in version 1", "1 items, 2 were eligible"]


def test_a_change_is_made_again_until_it_is_acknowledged_and_then_looked_for(work: Work) -> None:
    changes = of_kind(work, "items")
    work.refused(changes)
    assert of_kind(work, "items") is changes
    work.answered(changes, 5.0, {"items": [{"error": None}]})
    look = work.next()
    assert look.kind == "found"
    wanted = json.loads(look.body)["filter"]["item_id"]["in"]
    assert wanted == [change["item_id"] for change in changes.about if "title" in change]
    work.answered(look, 6.0, shown((wanted[0], "<a_0>")))
    assert work.wrong == [f"{item} is new and was not found" for item in sorted(wanted[1:])]


def test_items_that_were_shown_after_their_deletion(work: Work) -> None:
    gone: list[str] = []
    while not gone:
        made = of_kind(work, "items")
        work.answered(made, 5.0, {"items": []})
        gone = [change["item_id"] for change in made.about if change.get("deleted")]
    asked = of_kind(work, "user")
    for asked.asked, wrong in ((4.9, []), (5.1, [f"{gone[0]} was shown after it was deleted"])):
        work.answered(asked, 6.0, shown((gone[0], "<a_0>")))
        assert work.wrong == wrong


def test_events_are_sent_until_they_are_acknowledged(work: Work) -> None:
    events = of_kind(work, "events")
    work.refused(events)
    assert not any(work.acknowledged.values())
    assert of_kind(work, "events") is events
    work.answered(events, 1.0, {"accepted": 2, "duplicates": 1})
    assert sum(map(len, work.acknowledged.values())) == 3
    work.answered(events, 1.0, {"accepted": 2, "duplicates": 0})
    assert work.wrong == ["3 events were answered with {'accepted': 2, 'duplicates': 0}"]
