"""What a request excludes and what its user has seen is in no answer, whoever gives it."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from model_store.bundle import Bundle
from service.answer import Answer, Ask
from service.eligibility.policy import Policy, Seen
from service.engine import Engine, create_engine
from service.history import Event, History
from service.recommender import Recommender
from service.redis_client import connect
from tests.service.conftest import PATIENT_MS

BOUGHT = ["item-1", "item-2"]
CLICKED = ["item-3", "item-4", "item-5"]
NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
async def history(redis_url: str) -> AsyncIterator[History]:
    """That of ann, who bought two items and then clicked three."""
    client = connect(redis_url, timeout_ms=PATIENT_MS, connect_timeout_ms=PATIENT_MS)
    history = History(client)
    kinds = [(item, "purchase") for item in BOUGHT] + [(item, "click") for item in CLICKED]
    await history.append(
        [
            Event(f"e{n}", "ann", item, kind, NOON + timedelta(seconds=n))
            for n, (item, kind) in enumerate(kinds)
        ]
    )
    yield history
    await client.aclose()


@pytest.fixture(params=["torch", "fake"])
def engine(request: pytest.FixtureRequest, bundle: Bundle) -> Iterator[Engine]:
    with create_engine(request.param, bundle) as engine:
        yield engine


@pytest.fixture
def recommender(bundle: Bundle, engine: Engine, history: History) -> Recommender:
    return Recommender(bundle, engine, history, beam_width=20)


def ids(answer: Answer) -> set[str]:
    return {pick.item_id for pick in answer.picks}


async def test_an_excluded_item_makes_room_for_the_next(
    bundle: Bundle, recommender: Recommender
) -> None:
    every = await recommender.recommend(Ask(k=200, history=CLICKED))
    out = {pick.item_id for pick in every.picks[:40:2]}
    answer = await recommender.recommend(Ask(k=180, history=CLICKED, exclude=[*out, "unknown"]))
    left = [pick.item_id for pick in every.picks if pick.item_id not in out]
    assert [pick.item_id for pick in answer.picks] == left[:180]
    assert answer.eligible_items == len(bundle.catalogue) - 20
    assert every.eligible_items == len(bundle.catalogue)


@pytest.mark.parametrize(
    ("which", "seen"),
    [("nothing", []), ("purchased", BOUGHT), ("history", BOUGHT + CLICKED), (None, BOUGHT)],
)
async def test_what_was_seen_is_left_out(
    bundle: Bundle, recommender: Recommender, which: Seen | None, seen: list[str]
) -> None:
    answer = await recommender.recommend(Ask(k=200, user_id="ann", exclude_seen=which))
    assert answer.source == "model"
    assert not ids(answer) & set(seen)
    assert answer.seen_items == len(seen)
    assert answer.eligible_items == len(bundle.catalogue) - len(seen)
    assert len(ids(answer)) == 200


async def test_the_deployment_says_what_purchased_means(
    bundle: Bundle, engine: Engine, history: History
) -> None:
    policy = Policy(exclude_seen="history", purchase_types=("click",))
    recommender = Recommender(bundle, engine, history, beam_width=20, policy=policy)
    every = await recommender.recommend(Ask(k=5, user_id="ann"))
    assert every.seen_items == 5
    bought = await recommender.recommend(Ask(k=5, user_id="ann", exclude_seen="purchased"))
    assert bought.seen_items == len(CLICKED)


async def test_a_history_of_the_request_adds_to_what_was_seen(recommender: Recommender) -> None:
    ask = Ask(k=200, user_id="ann", history=["item-9"], exclude_seen="history")
    answer = await recommender.recommend(ask)
    assert answer.history_used == 1
    assert answer.seen_items == 6
    assert not ids(answer) & {*BOUGHT, *CLICKED, "item-9"}


async def test_seen_items_beyond_the_prompt_are_left_out(
    bundle: Bundle, recommender: Recommender, history: History
) -> None:
    """A long history does not fit the prompt; what fell off is still seen."""
    many = [f"item-{n}" for n in range(150)]
    await history.append(
        [
            Event(f"e{n}", "bob", item, "purchase", NOON + timedelta(seconds=n))
            for n, item in enumerate(many)
        ]
    )
    answer = await recommender.recommend(Ask(k=200, user_id="bob"))
    assert 0 < answer.history_used < 150
    assert ids(answer) == set(bundle.catalogue.item_ids) - set(many)
    assert answer.eligible_items == len(answer.picks) == 150


async def test_popular_items_are_eligible_too(bundle: Bundle, recommender: Recommender) -> None:
    order = [bundle.catalogue.item_ids[row] for row in bundle.catalogue.popular()]
    out = order[:50:2]
    answer = await recommender.recommend(Ask(k=100, exclude=out))
    assert answer.source == "popular"
    left = [item_id for item_id in order if item_id not in out]
    assert [pick.item_id for pick in answer.picks] == left[:100]


async def test_nothing_is_left(bundle: Bundle, recommender: Recommender) -> None:
    ask = Ask(k=5, history=CLICKED, exclude=bundle.catalogue.item_ids)
    answer = await recommender.recommend(ask)
    assert (answer.picks, answer.eligible_items) == ([], 0)
    assert answer.reason == "nothing_eligible"


async def test_a_history_that_is_away_cannot_say_what_was_seen(
    bundle: Bundle, engine: Engine
) -> None:
    client = connect("redis://127.0.0.1:1", timeout_ms=200)
    recommender = Recommender(bundle, engine, History(client), beam_width=20)
    carried = Ask(k=5, user_id="ann", history=CLICKED, exclude_seen="history")
    answer = await recommender.recommend(carried)
    assert (answer.source, answer.stored) == ("model", "unavailable")
    assert answer.seen_items is None
    assert not ids(answer) & set(CLICKED)  # what the request says is known all the same
    fallback = await recommender.recommend(Ask(k=5, user_id="ann"))
    assert (fallback.reason, fallback.seen_items) == ("history_unavailable", None)
    unasked = await recommender.recommend(Ask(k=5, user_id="ann", exclude_seen="nothing"))
    assert unasked.seen_items == 0
    await client.aclose()
