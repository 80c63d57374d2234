"""The beam that an answer shows, held against the answer itself and the catalogue."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from model_store.bundle import Bundle
from tests.service.conftest import MakeClient
from tests.service.test_api import HISTORY, recommend
from tests.service.titled import titled_bundle

CLOSE = 1e-5
Level = dict[str, Any]


@pytest.fixture(params=["torch", "fake"])
def client(request: pytest.FixtureRequest, make_client: MakeClient) -> TestClient:
    return make_client(engine=request.param, threads=1)


def of_fate(level: Level, fate: str) -> list[dict[str, Any]]:
    return [prefix for prefix in level["prefixes"] if prefix["fate"] == fate]


def paths(beam: list[Level]) -> list[list[tuple[str | None, ...]]]:
    """Per level and prefix its tokens, found by going from parent to parent."""
    found: list[list[tuple[str | None, ...]]] = []
    for level in beam:
        of_level = []
        for one in level["prefixes"]:
            begin = found[-1][one["parent"]] if one["parent"] is not None else ()
            of_level.append((*begin, one["token"]))
        found.append(of_level)
    return found


def assert_consistent(beam: list[Level], shown: dict[str, str], unlisted: dict[str, str]) -> None:
    """What must hold of any beam over items (id → SID) that may be shown, and others that may
    not."""
    above = None
    for number, (level, tokens) in enumerate(zip(beam, paths(beam), strict=True)):
        kept, dropped = of_fate(level, "kept"), of_fate(level, "dropped")
        barred = of_fate(level, "ineligible")
        assert level["prefixes"] == [*kept, *dropped, *barred]
        for group in (kept, dropped, barred):
            scores = [one["score"] for one in group]
            assert scores == sorted(scores, reverse=True)
            assert len(group) <= level["width"]
        assert len(kept) == min(level["width"], level["considered"] - level["removed"])
        died = level["considered"] - level["removed"] - len(kept)
        assert len(dropped) == min(level["width"], died)
        assert len(barred) <= level["removed"] <= level["considered"]
        if dropped:
            assert kept[-1]["score"] >= dropped[0]["score"]
        if barred and len(kept) == level["width"]:
            assert barred[-1]["score"] >= kept[-1]["score"]
        for one, path in zip(level["prefixes"], tokens, strict=True):
            assert one["prefix"] == "".join(token or "" for token in path)
            if above is None:
                assert one["parent"] is None
                before = 0.0
            else:
                parent = above["prefixes"][one["parent"]]
                assert parent["fate"] == "kept"
                before = parent["score"]
            assert one["score"] == pytest.approx(before + one["log_probability"], abs=CLOSE)
            whole = number == len(beam) - 1
            assert one["eligible_items"] == under(shown, one["prefix"], whole)
            assert (one["eligible_items"] == 0) is (one["fate"] == "ineligible")
            if one["fate"] == "ineligible":
                assert under(unlisted, one["prefix"], whole) > 0
        above = level


def assert_same_items(found: list[dict[str, Any]], right: list[dict[str, Any]]) -> None:
    """Scores may differ in their last digit: a prompt that is known is not computed again."""
    for one, other in zip(found, right, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=CLOSE)
        of_one, of_other = ({**item, "score": None, "levels": None} for item in (one, other))
        assert of_one == of_other


def under(items: dict[str, str], prefix: str, whole: bool) -> int:
    return sum(sid == prefix if whole else sid.startswith(prefix) for sid in items.values())


def split(bundle: Bundle, gone: set[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The SIDs of items that may be shown, and of those that may not."""
    sids = dict(zip(bundle.catalogue.item_ids, bundle.sids, strict=True))
    shown = {item: sid for item, sid in sids.items() if item not in gone}
    return shown, {item: sid for item, sid in sids.items() if item in gone}


@pytest.mark.parametrize("excluded", [0, 150, 280, 300])
def test_the_beam_of_a_recommendation(client: TestClient, bundle: Bundle, excluded: int) -> None:
    gone = {f"item-{n}" for n in range(excluded)}
    asked = {"history": HISTORY, "k": 5, "beam_width": 12, "exclude": sorted(gone)}
    plain = recommend(client, **asked, explain=True)
    answer = recommend(client, **asked, explain=True, trace=True)
    assert "beam" not in plain
    if excluded == 300:  # the model was not asked
        assert "beam" not in answer
        return
    beam = answer.pop("beam")
    assert_is_explained(beam, answer["items"])
    for one in (plain, answer):
        del one["request_id"], one["timing_ms"]
    assert_same_items(answer.pop("items"), plain.pop("items"))
    assert answer == plain
    assert [level["level"] for level in beam] == ["a", "b", "c", "d"]
    assert {level["width"] for level in beam} == {12}
    assert_consistent(beam, *split(bundle, gone))


def assert_is_explained(beam: list[Level], items: list[dict[str, Any]]) -> None:
    """The kept prefixes of the last level are the SIDs of the items, and each level says of them
    what the items' own levels say."""
    last = of_fate(beam[-1], "kept")
    sids = list(dict.fromkeys(item["sid"] for item in items))
    assert [one["prefix"] for one in last][: len(sids)] == sids
    ways = {}
    for place, one in enumerate(last):
        way, at = [], place
        for level in reversed(beam):
            way.append(level["prefixes"][at])
            at = way[-1]["parent"]
        ways[one["prefix"]] = [step for step in reversed(way) if step["token"] is not None]
    for item in items:
        steps = ways[item["sid"]]
        assert [(s["token"], s["log_probability"], s["eligible_items"]) for s in steps] == [
            (s["token"], s["log_probability"], s["eligible_items"]) for s in item["levels"]
        ]
        assert steps[-1]["score"] == item["score"]


def test_what_a_filter_and_a_deletion_remove(client: TestClient, bundle: Bundle) -> None:
    asked = {"history": HISTORY, "k": 3, "beam_width": 8}
    [best, *_] = recommend(client, **asked)["items"]
    same = [i for i, sid in split(bundle, set())[0].items() if sid == best["sid"]]
    changes = [{"item_id": item, "deleted": True} for item in same]
    assert client.put("/v1/items", json={"items": changes}).status_code == 200
    beam = recommend(client, **asked, trace=True)["beam"]
    assert_consistent(beam, *split(bundle, set(same)))
    [barred] = [one for level in beam for one in of_fate(level, "ineligible")][:1]
    assert best["sid"].startswith(barred["prefix"])

    other = {f"item-{n}" for n in range(300) if n % 5 != 3}
    beam = recommend(client, **asked, filter={"brand": "brand-3"}, trace=True)["beam"]
    assert_consistent(beam, *split(bundle, other | set(same)))
    assert sum(level["removed"] for level in beam) > 0


def test_a_sid_that_was_complete_goes_on_as_it_is(client: TestClient) -> None:
    answer = recommend(client, history=HISTORY, k=200, trace=True)
    above, last = answer["beam"][-2:]
    complete = [one for one in last["prefixes"] if one["token"] is None]
    assert 0 < len(complete) < len(last["prefixes"])
    for one in complete:
        assert one["log_probability"] == 0
        assert one["prefix"] == above["prefixes"][one["parent"]]["prefix"]


def test_neighbours_in_a_batch_are_not_affected(client: TestClient, bundle: Bundle) -> None:
    asked: list[dict[str, Any]] = [
        {"history": [f"item-{n}"], "k": 4, "exclude": [f"item-{m}" for m in range(20 * n)]}
        for n in range(1, 7)
    ]
    nine = [asked[0] | {"trace": True}] * 9
    refused = client.post("/v1/recommendations/batch", json={"requests": nine})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "requests")
    plain = client.post("/v1/recommendations/batch", json={"requests": asked}).json()
    some = [one | {"trace": n % 2 == 0} for n, one in enumerate(asked)]
    mixed = client.post("/v1/recommendations/batch", json={"requests": some}).json()
    for n, (one, other) in enumerate(zip(plain["results"], mixed["results"], strict=True)):
        assert ("beam" in other["answer"]) is (n % 2 == 0)
        assert_same_items(other["answer"]["items"], one["answer"]["items"])
        if beam := other["answer"].get("beam"):
            gone = set(asked[n]["exclude"])
            assert_consistent(beam, *split(bundle, gone))


def test_no_model_no_beam(make_client: MakeClient) -> None:
    client = make_client()
    assert "beam" not in recommend(client, trace=True)
    client.app_state["service"].holder.current.engine.fails = True
    answer = recommend(client, history=HISTORY, trace=True)
    assert answer["reason"] == "engine_error"
    assert "beam" not in answer


def test_similar_items(client: TestClient, bundle: Bundle) -> None:
    answer = client.post("/v1/items/item-7/similar", json={"k": 3, "trace": True}).json()
    assert_consistent(answer["beam"], *split(bundle, {"item-7"}))


def test_a_search(make_client: MakeClient, tmp_path_factory: pytest.TempPathFactory) -> None:
    titled = titled_bundle(tmp_path_factory.mktemp("titled"))
    client = make_client(bundle=titled.path, engine="torch", threads=1)
    asked = {"query": "Title 7", "k": 4, "explain": True, "filter": {"brand": "brand-3"}}
    plain = client.post("/v1/search", json=asked).json()
    answer = client.post("/v1/search", json=asked | {"trace": True}).json()
    assert "beam" not in plain
    assert_same_items(answer["items"], plain["items"])
    other = {f"item-{n}" for n in range(60) if n % 5 != 3}
    assert_consistent(answer["beam"], *split(titled, other))
    assert_is_explained(answer["beam"], answer["items"])
    nothing = client.post("/v1/search", json=asked | {"trace": True, "exclude": list(other)})
    assert nothing.json()["beam"]
    none = {"trace": True, "exclude": titled.catalogue.item_ids}
    assert "beam" not in client.post("/v1/search", json=asked | none).json()


def test_constant_tokens_around_a_sid(make_client: MakeClient, opening_bundle: Bundle) -> None:
    client = make_client(bundle=opening_bundle.path)
    answer = recommend(client, history=HISTORY, k=5, trace=True)
    *_, above, last = answer["beam"]
    sids = [one["prefix"] for one in of_fate(last, "kept")]
    assert set(sids) <= set(opening_bundle.sids)
    for item in answer["items"]:
        assert item["sid"] in sids
    for one in last["prefixes"]:
        parent = above["prefixes"][one["parent"]]["prefix"]
        assert parent.startswith("<|sid_begin|>")
        assert one["prefix"] == f"{parent}{one['token']}<|sid_end|>"


def test_it_is_never_one_that_was_kept(make_client: MakeClient) -> None:
    client = make_client(cache_ttl_ms=60_000)
    asked = {"history": HISTORY, "k": 5}
    recommend(client, **asked)
    for _ in range(2):
        answer = recommend(client, **asked, trace=True)
        assert answer["beam"]
        assert "cached" not in answer
    again = recommend(client, **asked)
    assert again["cached"] is True
    assert "beam" not in again
    assert again["items"] == answer["items"]
