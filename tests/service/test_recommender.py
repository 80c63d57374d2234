"""The recommender over real engines and a real Redis."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from model_store.bundle import Bundle
from service.answer import Answer, Ask, Pick
from service.engine import Engine, Query, create_engine
from service.engine.fake import FakeEngine
from service.errors import InvalidInput
from service.history import Event, History
from service.prompt import PromptBuilder
from service.recommender import Recommender
from service.redis_client import connect
from tests.service.conftest import PATIENT_MS, SCENE_TEMPLATE
from tests.tiny import make_bundle, random_items

HISTORY = ["item-1", "item-2", "item-3"]


@pytest.fixture
async def history(redis_url: str) -> AsyncIterator[History]:
    client = connect(redis_url, timeout_ms=PATIENT_MS, connect_timeout_ms=PATIENT_MS)
    yield History(client)
    await client.aclose()


@pytest.fixture
async def away() -> AsyncIterator[History]:
    """A history whose Redis is not there."""
    client = connect("redis://127.0.0.1:1", timeout_ms=200)
    yield History(client)
    await client.aclose()


@pytest.fixture(params=["torch", "fake"])
def engine(request: pytest.FixtureRequest, bundle: Bundle) -> Iterator[Engine]:
    with create_engine(request.param, bundle) as engine:
        yield engine


@pytest.fixture
def fake(bundle: Bundle) -> Iterator[FakeEngine]:
    with FakeEngine(bundle) as engine:
        yield engine


def item_ids(answer: Answer) -> list[str]:
    return [pick.item_id for pick in answer.picks]


async def remember(history: History, user_id: str, items: list[str]) -> None:
    noon = datetime(2025, 6, 1, 12, tzinfo=UTC)
    await history.append(
        [
            Event(f"e{n}", user_id, item, "click", noon + timedelta(seconds=n))
            for n, item in enumerate(items)
        ]
    )


@pytest.mark.parametrize("k", [1, 10, 100, 200])
async def test_items_are_those_of_the_best_beams(
    bundle: Bundle, engine: Engine, history: History, k: int
) -> None:
    recommender = Recommender(bundle, engine, history, beam_width=20)
    answer = await recommender.recommend(Ask(k=k, history=HISTORY))
    catalogue = bundle.catalogue
    tokens, _ = PromptBuilder(bundle).build([catalogue.row_of[item] for item in HISTORY])
    [beams] = engine.search_batch([Query(tokens, max(20, k))])
    expected = [
        Pick(catalogue.item_ids[row], catalogue.titles[row], bundle.sids[row], beam.score, "model")
        for beam in beams
        for row in sorted(
            beam.rows, key=lambda r: (-catalogue.popularity[r], catalogue.item_ids[r])
        )
    ][:k]
    assert [replace(pick, score=None) for pick in answer.picks] == [
        replace(pick, score=None) for pick in expected
    ]
    scores = [pick.score for pick in expected]
    assert [pick.score for pick in answer.picks] == pytest.approx(scores, abs=1e-5)
    assert len(set(item_ids(answer))) == k
    assert (answer.source, answer.reason, answer.stored) == ("model", None, None)
    assert (answer.history_used, answer.unknown_items) == (3, 0)
    assert list(answer.timing_ms) == [
        "history",
        "eligibility",
        "prompt",
        "search",
        "items",
        "total",
    ]
    stages = sum(ms for stage, ms in answer.timing_ms.items() if stage != "total")
    assert stages == pytest.approx(answer.timing_ms["total"], abs=0.01)


async def test_within_a_sid_the_popular_come_first_then_the_item_id(
    tmp_path: Path, history: History
) -> None:
    items = random_items(4, (1, 1))
    for item, popularity in zip(items, (5, 7, 7, 9), strict=True):
        item["popularity"] = popularity
    bundle = make_bundle(tmp_path, items[::-1])
    with FakeEngine(bundle) as fake:
        recommender = Recommender(bundle, fake, history, beam_width=20)
        answer = await recommender.recommend(Ask(k=3, history=["item-0"]))
        assert item_ids(answer) == ["item-3", "item-1", "item-2"]
        everything = await recommender.recommend(Ask(k=10, history=["item-0"]))
        assert len(everything.picks) == 4  # there are no more


async def test_the_beam_width_is_at_least_k(
    bundle: Bundle, fake: FakeEngine, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = []
    search = fake.search

    async def spy(query: Query) -> Any:
        widths.append(query.beam_width)
        return await search(query)

    monkeypatch.setattr(fake, "search", spy)
    recommender = Recommender(bundle, fake, history, beam_width=20)
    for k, width in ((10, None), (30, None), (10, 15), (30, 15), (10, 64)):
        await recommender.recommend(Ask(k=k, history=HISTORY, beam_width=width))
    assert widths == [20, 30, 15, 30, 64]


async def test_the_stored_history_is_read_and_that_of_the_request_wins(
    bundle: Bundle, fake: FakeEngine, history: History
) -> None:
    await remember(history, "ann", HISTORY)
    recommender = Recommender(bundle, fake, history, beam_width=20)
    stored = await recommender.recommend(Ask(k=5, user_id="ann"))
    same = await recommender.recommend(Ask(k=5, history=HISTORY))
    other = await recommender.recommend(Ask(k=5, user_id="ann", history=["item-9"]))
    assert stored.stored == "hit"
    assert (stored.source, stored.history_used) == ("model", 3)
    assert stored.picks == same.picks
    assert other.stored == "hit"  # for what has been seen
    assert other.history_used == 1
    assert other.picks != stored.picks
    unread = Ask(k=5, user_id="ann", history=["item-9"], exclude_seen="nothing")
    assert (await recommender.recommend(unread)).stored is None


@pytest.mark.parametrize(
    ("ask", "stored", "unknown"),
    [
        (Ask(k=5), None, 0),
        (Ask(k=5, user_id="nobody"), "miss", 0),
        (Ask(k=5, user_id="nobody", history=[]), "miss", 0),
        (Ask(k=5, history=["gone", "\0"]), None, 2),
    ],
)
async def test_without_a_history_the_popular_items(
    bundle: Bundle, fake: FakeEngine, history: History, ask: Ask, stored: str, unknown: int
) -> None:
    recommender = Recommender(bundle, fake, history, beam_width=20)
    answer = await recommender.recommend(ask)
    assert (answer.source, answer.reason) == ("popular", "no_history")
    assert (answer.stored, answer.unknown_items, answer.history_used) == (stored, unknown, 0)
    rows = bundle.catalogue.popular()[:5]
    assert item_ids(answer) == [bundle.catalogue.item_ids[row] for row in rows]
    assert {pick.score for pick in answer.picks} == {None}


async def test_unknown_items_are_dropped_and_counted(
    bundle: Bundle, fake: FakeEngine, history: History
) -> None:
    recommender = Recommender(bundle, fake, history, beam_width=20)
    answer = await recommender.recommend(Ask(k=5, history=["x", *HISTORY, "y"]))
    assert (answer.source, answer.history_used, answer.unknown_items) == ("model", 3, 2)
    assert answer.picks == (await recommender.recommend(Ask(k=5, history=HISTORY))).picks


async def test_a_history_that_is_away(bundle: Bundle, fake: FakeEngine, away: History) -> None:
    recommender = Recommender(bundle, fake, away, beam_width=20)
    answer = await recommender.recommend(Ask(k=5, user_id="ann"))
    assert (answer.source, answer.reason) == ("popular", "history_unavailable")
    assert answer.stored == "unavailable"
    assert len(answer.picks) == 5
    assert list(answer.timing_ms) == ["history", "eligibility", "items", "total"]
    carried = await recommender.recommend(Ask(k=5, user_id="ann", history=HISTORY))
    assert carried.source == "model"


async def test_an_engine_that_fails_and_one_that_has_stopped(
    bundle: Bundle, fake: FakeEngine, history: History
) -> None:
    recommender = Recommender(bundle, fake, history, beam_width=20)
    fake.fails = True
    with capture_logs() as logs:
        answer = await recommender.recommend(Ask(k=5, history=HISTORY))
    [line] = logs
    assert (line["event"], line["log_level"]) == ("fallback", "warning")
    assert (line["reason"], "told to fail" in line["error"]) == ("engine_error", True)
    assert (answer.source, answer.reason, answer.history_used) == ("popular", "engine_error", 0)
    assert list(answer.timing_ms) == [
        "history",
        "eligibility",
        "prompt",
        "search",
        "items",
        "total",
    ]
    fake.close()
    answer = await recommender.recommend(Ask(k=5, history=HISTORY))
    assert (answer.source, answer.reason) == ("popular", "engine_dead")


async def test_scenes(scene_bundle: Bundle, history: History) -> None:
    with FakeEngine(scene_bundle) as fake:
        recommender = Recommender(scene_bundle, fake, history, beam_width=20)
        by_scene = {
            scene: item_ids(await recommender.recommend(Ask(k=3, scene=scene)))
            for scene in (None, "home", "cart")
        }
        assert by_scene["home"] == ["item-59", "item-58", "item-57"]
        assert by_scene["cart"] == ["item-0", "item-1", "item-2"]
        assert by_scene[None] not in (by_scene["home"], by_scene["cart"])
        with pytest.raises(InvalidInput, match=r"scene: .*home, cart"):
            await recommender.recommend(Ask(k=3, scene="attic"))


async def test_a_scene_with_an_adapter_is_searched_with_it(
    tmp_path: Path, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = random_items(60, (4, 4, 4))
    bundle = make_bundle(tmp_path, items, prompt=SCENE_TEMPLATE, adapters={"cart": 2})
    with FakeEngine(bundle) as fake:
        adapters, search = [], fake.search

        async def spy(query: Query) -> Any:
            adapters.append(query.adapter)
            return await search(query)

        monkeypatch.setattr(fake, "search", spy)
        recommender = Recommender(bundle, fake, history, beam_width=20)
        for scene in ("cart", "home", None):
            answer = await recommender.recommend(Ask(k=3, history=HISTORY, scene=scene))
            assert answer.source == "model"
    assert adapters == ["cart", None, None]


async def test_profile_and_scene_reach_the_model(scene_bundle: Bundle, history: History) -> None:
    with create_engine("torch", scene_bundle) as engine:
        recommender = Recommender(scene_bundle, engine, history, beam_width=20)
        answers = [
            await recommender.recommend(
                Ask(k=20, history=HISTORY, profile={"age": age}, scene=scene)
            )
            for age, scene in (("old", "home"), ("young", "home"), ("old", "cart"))
        ]
    assert len({tuple(pick.score for pick in answer.picks) for answer in answers}) == 3


async def test_a_bundle_without_scenes_ignores_them(
    bundle: Bundle, fake: FakeEngine, history: History
) -> None:
    recommender = Recommender(bundle, fake, history, beam_width=20)
    answer = await recommender.recommend(Ask(k=5, history=HISTORY, scene="attic"))
    assert answer.picks == (await recommender.recommend(Ask(k=5, history=HISTORY))).picks
