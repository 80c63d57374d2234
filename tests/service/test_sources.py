"""The chain of sources: which one answers, why, and how one fills what another left."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from model_store.bundle import Bundle
from model_store.prompt import PromptTemplate
from model_store.sid import Eligibility
from service.answer import Answer, Ask
from service.engine import Engine, Query, create_engine
from service.engine.fake import FakeEngine
from service.history import Event, History
from service.popularity import Popularity
from service.prompt import PromptBuilder
from service.recommender import Recommender
from service.redis_client import Server, connect
from service.sources import Picks, popular_rows
from tests.service.conftest import PATIENT_MS, SCENE_TEMPLATE
from tests.tiny import make_bundle, random_items

HISTORY = ["item-1", "item-2", "item-3"]
OLD = {"age": "old"}


@pytest.fixture(scope="module")
def cold_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """One that is asked by profile and scene too; its catalogue counts in one of two scenes."""
    items = random_items(60, (4, 4, 4))
    for number, item in enumerate(items):
        item["popularity_by_scene"] = {"home": number}
    template = SCENE_TEMPLATE.model_copy(update={"cold": True})
    return make_bundle(tmp_path_factory.mktemp("cold"), items, prompt=template)


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Server]:
    client = connect(redis_url, timeout_ms=PATIENT_MS, connect_timeout_ms=PATIENT_MS)
    yield client
    await client.aclose()


@pytest.fixture
async def away() -> AsyncIterator[Server]:
    """A Redis that is not there."""
    client = connect("redis://127.0.0.1:1", timeout_ms=200)
    yield client
    await client.aclose()


@pytest.fixture
def engine(cold_bundle: Bundle) -> Iterator[Engine]:
    with create_engine("torch", cold_bundle) as engine:
        yield engine


@pytest.fixture
def fake(cold_bundle: Bundle) -> Iterator[FakeEngine]:
    with FakeEngine(cold_bundle) as engine:
        yield engine


def recommender(bundle: Bundle, engine: Engine, client: Server) -> Recommender:
    return Recommender(bundle, engine, History(client), beam_width=20)


def ids(answer: Answer) -> list[str]:
    return [pick.item_id for pick in answer.picks]


def why(answer: Answer) -> tuple[str, str | None]:
    return answer.source, answer.reason


async def test_a_stranger_is_asked_for_by_profile_and_scene(
    cold_bundle: Bundle, engine: Engine, client: Server
) -> None:
    asked = recommender(cold_bundle, engine, client)
    answer = await asked.recommend(Ask(k=10, user_id="nobody", profile=OLD, scene="home"))
    assert why(answer) == ("profile", "no_history")
    assert (answer.stored, answer.history_used, len(answer.picks)) == ("miss", 0, 10)
    assert {pick.source for pick in answer.picks} == {"profile"}
    # It is what the model says to a prompt without a history.
    tokens, _ = PromptBuilder(cold_bundle).build([], OLD, "home")
    [beams] = engine.search_batch([Query(tokens, 20)])
    best = [cold_bundle.catalogue.item_ids[row] for beam in beams for row in beam.rows]
    assert ids(answer) == best[:10]
    assert answer.picks[0].score == pytest.approx(beams[0].score, abs=1e-5)


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (Ask(k=5, profile=OLD), "profile"),
        (Ask(k=5, scene="cart"), "profile"),
        (Ask(k=5, history=["gone"], profile=OLD), "profile"),
        (Ask(k=5), "popular"),
        (Ask(k=5, profile={"age": "99", "shoe": "43"}), "popular"),  # a prompt of unknowns
        (Ask(k=5, history=HISTORY), "model"),
    ],
)
async def test_the_model_is_asked_when_there_is_something_to_ask_by(
    cold_bundle: Bundle, fake: FakeEngine, client: Server, ask: Ask, expected: str
) -> None:
    answer = await recommender(cold_bundle, fake, client).recommend(ask)
    assert why(answer) == (expected, None if expected == "model" else "no_history")


async def test_a_stored_profile_is_enough(
    cold_bundle: Bundle, fake: FakeEngine, client: Server
) -> None:
    await History(client).put_profile("ann", OLD)
    asked = recommender(cold_bundle, fake, client)
    answer = await asked.recommend(Ask(k=5, user_id="ann"))
    assert why(answer) == ("profile", "no_history")
    assert answer.picks == (await asked.recommend(Ask(k=5, profile=OLD))).picks


async def test_a_bundle_that_was_not_trained_so_is_not_asked_so(
    scene_bundle: Bundle, client: Server
) -> None:
    with FakeEngine(scene_bundle) as fake:
        asked = recommender(scene_bundle, fake, client)
        answer = await asked.recommend(Ask(k=5, profile=OLD, scene="home"))
    assert why(answer) == ("popular_in_scene", "no_history")


async def test_a_history_that_is_away_leaves_profile_and_scene(
    cold_bundle: Bundle, fake: FakeEngine, away: Server
) -> None:
    asked = recommender(cold_bundle, fake, away)
    answer = await asked.recommend(Ask(k=5, user_id="ann", profile=OLD))
    assert why(answer) == ("profile", "history_unavailable")
    assert why(await asked.recommend(Ask(k=5, user_id="ann"))) == ("popular", "history_unavailable")
    carried = await asked.recommend(Ask(k=5, user_id="ann", history=HISTORY))
    assert why(carried) == ("model", None)
    assert carried.stored == "unavailable"


@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("history", [HISTORY, []])
async def test_an_engine_in_trouble_is_asked_once(
    cold_bundle: Bundle,
    fake: FakeEngine,
    away: Server,
    monkeypatch: pytest.MonkeyPatch,
    dead: bool,
    history: list[str],
) -> None:
    """And everything else away too: the catalogue still answers."""
    asked = recommender(cold_bundle, fake, away)
    searches, search = [], fake.search

    async def spy(query: Query) -> object:
        searches.append(query)
        return await search(query)

    monkeypatch.setattr(fake, "search", spy)
    fake.fails = True
    if dead:
        fake.close()
    reason = "engine_dead" if dead else "engine_error"
    ask = Ask(k=5, user_id="ann", history=history, profile=OLD, scene="home")
    with capture_logs() as logs:
        answer = await asked.recommend(ask)
    assert why(answer) == ("popular_in_scene", reason)
    assert len(searches) == 1
    assert [line["reason"] for line in logs if line["event"] == "fallback"] == [reason]
    assert ids(answer) == [f"item-{n}" for n in (59, 58, 57, 56, 55)]


async def test_nothing_eligible_asks_nobody(
    cold_bundle: Bundle, fake: FakeEngine, client: Server
) -> None:
    every = cold_bundle.catalogue.item_ids
    asked = recommender(cold_bundle, fake, client)
    for ask in (Ask(k=5, history=HISTORY, exclude=every), Ask(k=5, profile=OLD, exclude=every)):
        fake.stats()
        answer = await asked.recommend(ask)
        assert answer.picks == []
        assert answer.reason == "nothing_eligible"
        assert list(fake.stats().batch_sizes) == []


async def counted(client: Server, clicks: dict[str | None, list[str]]) -> Popularity:
    made = Popularity(client)
    made.watch(["home", "cart"])
    now = datetime.now(UTC)
    for scene, items in clicks.items():
        for n, item in enumerate(items):
            event = Event("e", "u", item, "click", now)
            made.count([(event, scene)] * (len(items) - n))
    await made.refresh()
    return made


async def test_a_short_list_is_filled_by_the_next_source(
    cold_bundle: Bundle, fake: FakeEngine, client: Server
) -> None:
    """Nobody counted by scene `cart` when the catalogue was made: what is clicked there is all."""
    popularity = await counted(
        client, {"cart": ["item-7", "unknown", "item-8", "item-9"], None: ["item-8", "item-3"]}
    )
    fake.fails = True
    asked = Recommender(cold_bundle, fake, History(client), beam_width=20, popularity=popularity)
    ask = Ask(k=60, history=HISTORY, scene="cart", exclude=["item-9", "item-4"])
    answer = await asked.recommend(ask)
    assert why(answer) == ("popular_in_scene", "engine_error")
    assert ids(answer)[:2] == ["item-7", "item-8"]
    assert [pick.source for pick in answer.picks] == ["popular_in_scene"] * 2 + ["popular"] * 56
    order = [cold_bundle.catalogue.item_ids[row] for row in cold_bundle.catalogue.popular()]
    shown = {"item-7", "item-8", "item-3", "item-9", "item-4"}
    assert ids(answer)[2:] == ["item-3", *(item for item in order if item not in shown)]
    assert {pick.score for pick in answer.picks} == {None}


async def test_the_order_of_the_chain(scene_bundle: Bundle, client: Server) -> None:
    popularity = await counted(client, {"home": ["item-7"], None: ["item-8"]})
    catalogue = scene_bundle.catalogue
    chain = list(popular_rows(catalogue, popularity, "home"))
    assert [source for source, _ in chain] == ["popular_in_scene"] * 2 + ["popular"] * 2
    names = [[catalogue.item_ids[row] for row in rows[:2]] for _, rows in chain]
    assert names[:2] == [["item-7"], ["item-59", "item-58"]]
    assert set(names[2]) == {"item-7", "item-8"}
    assert [source for source, _ in popular_rows(catalogue, None, None)] == ["popular"] * 2


rankings = st.lists(
    st.permutations(range(12)).flatmap(lambda p: st.integers(0, 12).map(lambda n: p[:n])),
    max_size=4,
)


@given(k=st.integers(1, 14), rankings=rankings, out=st.none() | st.sets(st.integers(0, 11)))
def test_filling_equals_the_plain_way(
    k: int, rankings: list[list[int]], out: set[int] | None
) -> None:
    eligible = None if out is None else Eligibility.of(np.array([n not in out for n in range(12)]))
    picks = Picks(k, eligible)
    expected: list[tuple[int, str]] = []
    for source, ranking in zip(("popular_in_scene", "popular") * 2, rankings, strict=False):
        picks.ranked(source, np.array(ranking, np.int64))  # type: ignore[arg-type]
        for row in ranking:
            if len(expected) < k and row not in (out or ()) and row not in dict(expected):
                expected.append((row, source))
    assert [(row, source) for row, _, source in picks] == expected
    assert picks.full == (len(expected) == k)


async def test_a_template_without_a_scene_has_only_the_profile_to_ask_by(
    tmp_path: Path, client: Server
) -> None:
    template = PromptTemplate(
        text="{profile}: {history} next ",
        profile=SCENE_TEMPLATE.profile,
        scenes=("home",),
        cold=True,
    )
    bundle = make_bundle(tmp_path, random_items(30, (4, 4)), prompt=template)
    with FakeEngine(bundle) as fake:
        asked = recommender(bundle, fake, client)
        assert why(await asked.recommend(Ask(k=5, scene="home"))) == ("popular", "no_history")
        assert why(await asked.recommend(Ask(k=5, profile=OLD))) == ("profile", "no_history")
