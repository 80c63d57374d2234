"""What users do: its shares, and that only its seed and the answers decide it."""

import json
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from bench.load.traffic import EVENTS, RECOMMENDATIONS, Call, Mix, Session, Traffic
from bench.users import Users

ITEMS = [f"i{n}" for n in range(100)]
FILTERS: dict[str, list[Any]] = {"brand": ["a", "b"], "price": [{"lt": 5}]}


def traffic(mix: Mix, *, seed: int = 1, users: int = 50) -> Traffic:
    crowd = Users(ITEMS, users, name="load", exponent=0.6)
    return Traffic(crowd, FILTERS, mix, seed=seed, name="run")


def sent(one: Traffic, count: int, rate: float = 20) -> list[tuple[Session, Call]]:
    return [one.call(rate) for _ in range(count)]


def body(call: Call) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(call.body)
    return document


def test_the_shares_are_those_of_the_mix_from_the_first_request_on() -> None:
    calls = sent(traffic(Mix(events=0.3, filters=0.2, cold=0.1, session=5, k=7)), 6000)
    for some in (calls[:1500], calls[-3000:]):
        events = [call for _, call in some if call.path == EVENTS]
        assert len(events) / len(some) == pytest.approx(0.3, abs=0.05)
    asked = [body(call) for _, call in calls if call.path == RECOMMENDATIONS]
    assert sum("filter" in one for one in asked) / len(asked) == pytest.approx(0.2, abs=0.03)
    assert {one["k"] for one in asked} == {7}
    sessions = {id(session): session for session, _ in calls}
    assert len(calls) / len(sessions) == pytest.approx(5, rel=0.1)
    new = {one["user_id"] for one in asked if "-new-" in one["user_id"]}
    assert len(new) / len(sessions) == pytest.approx(0.1, abs=0.03)


def test_a_session_begins_with_a_recommendation_and_goes_on_for_one_user() -> None:
    one = traffic(Mix(events=0.5, session=6))
    for _ in range(200):
        session = one.session()
        first = session.next()
        assert first.path == RECOMMENDATIONS
        user = body(first)["user_id"]
        while not session.over:
            call = session.next()
            about = body(call)["events"][0] if call.path == EVENTS else body(call)
            assert about["user_id"] == user


def test_what_was_shown_is_clicked_the_first_items_most() -> None:
    one = traffic(Mix(events=0.8, session=1e9, cold=0))
    session = one.session()
    session.next()
    session.shown(["x", "y", "z"])
    calls = [session.next() for _ in range(2000)]
    clicked = Counter(body(call)["events"][0]["item_id"] for call in calls if call.path == EVENTS)
    assert set(clicked) == {"x", "y", "z"}
    assert clicked["x"] > clicked["y"] > clicked["z"]


def test_events_are_never_the_same_twice() -> None:
    calls = [call for _, call in sent(traffic(Mix(events=0.6)), 500) if call.path == EVENTS]
    ids = [body(call)["events"][0]["event_id"] for call in calls]
    assert len(set(ids)) == len(ids) > 100


def test_without_writing_a_history_comes_along_and_grows() -> None:
    one = traffic(Mix(stored=False, session=1e9, cold=0, events=0.5))
    session = one.session()
    session.shown(["x"])
    histories = [body(session.next())["history"] for _ in range(4)]
    assert histories[0] in one.users.histories
    assert all(later == [*earlier, "x"] for earlier, later in pairwise(histories))
    assert all(call.path == RECOMMENDATIONS for _, call in sent(one, 200))


def test_there_are_as_many_sessions_as_think_for_their_time() -> None:
    one = traffic(Mix(session=1e9, think_s=2))
    assert len({id(session) for session, _ in sent(one, 3000, rate=20)}) == 40
    assert len({id(session) for session, _ in sent(one, 3000, rate=5)}) == 10


def test_the_same_seed_is_the_same_traffic() -> None:
    def said(seed: int) -> list[bytes]:
        calls = sent(traffic(Mix(events=0), seed=seed), 300)
        return [call.body for _, call in calls]

    assert said(1) == said(1) != said(2)


def test_frequent_users_come_more_often_as_the_exponent_says() -> None:
    for exponent, least, most in ((0.0, 0.5, 2), (1.0, 10, 40)):
        crowd = Users(ITEMS, 20, exponent=exponent)
        visits = Counter(crowd.draw(20_000))
        assert least < visits[0] / visits[19] < most
