"""Experiments over HTTP: described, followed, counted, reported, forgotten."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis as sync_redis
from starlette.testclient import TestClient

from service.experiments.experiments import Experiments
from tests.service.conftest import MakeClient
from tests.service.experiments.conftest import design
from tests.service.test_api import HISTORY, event, recommend
from tests.service.test_metrics import scrape, value
from tests.service.test_refusals import refused

URL = "/v1/experiments/beams"


def put(client: TestClient, name: str = "beams", **fields: Any) -> dict[str, Any]:
    response = client.put(f"/v1/experiments/{name}", json=design(**fields))
    assert response.status_code == 200, response.text
    made: dict[str, Any] = response.json()
    return made


def experiments(client: TestClient) -> Experiments:
    found: Experiments = client.app_state["service"].experiments
    return found


def report(client: TestClient, name: str = "beams") -> dict[str, Any]:
    """After everything that waits was delivered, events included."""
    for _ in range(2):
        response = client.get(f"/v1/experiments/{name}/report")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def by_name(found: dict[str, Any]) -> dict[str, Any]:
    return {arm["name"]: arm for arm in found["arms"]}


def click(number: int, user: str, **more: Any) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat()
    return event(number, user_id=user, **{"timestamp": now, **more})


def test_from_the_start_to_the_report(client: TestClient) -> None:
    made = put(client, description="Do more beams find more?")
    assert (made["status"], made["salt"]) == ("running", "beams")
    arms: dict[str, str] = {}
    requests: dict[str, str] = {}
    for n in range(60):
        answer = recommend(client, user_id=f"u{n}", history=HISTORY)
        [member] = answer["experiments"]
        assert member["experiment"] == "beams"
        arms[f"u{n}"], requests[f"u{n}"] = member["arm"], answer["request_id"]
    again = recommend(client, user_id="u0", history=HISTORY)
    assert again["experiments"] == [{"experiment": "beams", "arm": arms["u0"]}]
    clicking = [user for user, arm in arms.items() if arm == "wide"][:10]
    buying = [user for user, arm in arms.items() if arm == "narrow"][:3]
    events = [click(n, user, request_id=requests[user]) for n, user in enumerate(clicking)]
    events += [click(n, user, type="purchase") for n, user in enumerate(buying)]
    for _ in range(2):  # a repetition changes nothing
        assert client.post("/v1/events", json=events).status_code == 200
    found = report(client)
    shown = Counter(arms.values())
    wide, narrow = by_name(found)["wide"], by_name(found)["narrow"]
    assert found["exact"] is True
    assert (wide["exposed_users"], narrow["exposed_users"]) == (shown["wide"], shown["narrow"])
    assert (wide["clicking"]["users"], narrow["clicking"]["users"]) == (10, 0)
    assert wide["clicking"]["value"] == pytest.approx(10 / shown["wide"])
    assert wide["clicking"]["low"] < wide["clicking"]["value"] < wide["clicking"]["high"]
    assert (wide["purchasing"]["users"], narrow["purchasing"]["users"]) == (0, 3)
    assert wide["clicking_vs_control"]["verdict"] == "better"
    assert narrow["clicking_vs_control"] is None
    assert sum(arm["guardrails"]["answers"] for arm in found["arms"]) == 61
    assert wide["guardrails"]["p99_ms"] >= wide["guardrails"]["p50_ms"] > 0
    assert wide["guardrails"]["fallback_share"] == wide["guardrails"]["empty_share"] == 0
    page = client.get(f"{URL}/report.html")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "Do more beams find more?" in page.text
    samples = scrape(client)
    exposures = [
        value(samples, "experiment_exposures_total", experiment="beams", arm=arm)
        for arm in ("narrow", "wide")
    ]
    assert sum(exposures) == 61


def test_an_arm_changes_the_search(client: TestClient) -> None:
    put(client)
    searched: list[int] = []
    engine = client.app_state["service"].holder.current.engine
    search = engine.search

    async def noted(query: Any) -> Any:
        searched.append(query.beam_width)
        return await search(query)

    engine.search = noted
    arms = [
        recommend(client, user_id=f"u{n}", history=HISTORY, beam_width=30)["experiments"][0]["arm"]
        for n in range(10)
    ]
    assert set(arms) == {"narrow", "wide"}
    assert searched == [50 if arm == "wide" else 30 for arm in arms]


def test_who_is_in_none(client: TestClient) -> None:
    put(client, scene="cart")
    assert "experiments" not in recommend(client, history=HISTORY)
    assert "experiments" not in recommend(client, user_id="ann", history=HISTORY)
    assert "experiments" in recommend(client, user_id="ann", history=HISTORY, scene="cart")
    client.post(f"{URL}/stop")
    assert "experiments" not in recommend(client, user_id="ann", history=HISTORY, scene="cart")


def test_a_forced_user_sees_the_arm_and_is_not_counted(client: TestClient) -> None:
    put(client, start=(datetime.now(UTC) + timedelta(days=1)).isoformat())
    assert "experiments" not in recommend(client, user_id="ann", history=HISTORY)
    for arm in ("wide", "narrow"):
        forced = client.put(f"{URL}/users/ann", json={"arm": arm})
        assert forced.json()["forced"] == {"ann": arm}
        answer = recommend(client, user_id="ann", history=HISTORY)
        assert answer["experiments"] == [{"experiment": "beams", "arm": arm}]
    client.post("/v1/events", json=[click(1, "ann", request_id=answer["request_id"])])
    assert [arm["exposed_users"] for arm in report(client)["arms"]] == [0, 0]
    assert client.delete(f"{URL}/users/ann").status_code == 204
    assert "experiments" not in recommend(client, user_id="ann", history=HISTORY)
    refused(client.put(f"{URL}/users/ann", json={"arm": "third"}), 422, "arm")


def test_what_can_be_read_changed_and_removed(client: TestClient) -> None:
    refused(client.get(URL), 404)
    refused(client.get(f"{URL}/report"), 404)
    refused(client.post(f"{URL}/stop"), 404)
    made = put(client)
    assert client.get(URL).json() == made
    assert client.get("/v1/experiments").json() == {"experiments": [made]}
    recommend(client, user_id="ann", history=HISTORY)
    report(client)
    assert value(scrape(client), "experiment_exposures_total", experiment="beams", arm="x") == 0
    stopped = client.post(f"{URL}/stop").json()
    assert stopped["status"] == "ended"
    assert client.post(f"{URL}/stop").json() == stopped
    assert sum(arm["exposed_users"] for arm in report(client)["arms"]) == 1
    for _ in range(2):
        assert client.delete(URL).status_code == 204
    refused(client.get(URL), 404)
    assert not any(name == "sidrec_experiment_exposures_total" for name, _ in scrape(client))
    again = put(client)
    assert again["key"] != made["key"]
    assert sum(arm["exposed_users"] for arm in report(client)["arms"]) == 0


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"arms": []}, "arms"),
        ({"arms": [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5}]}, "arms"),
        ({"arms": [{"name": "a", "share": 0.5, "control": True}] * 2}, "arms"),
        (
            {"arms": [{"name": n, "share": 0.6, "control": n == "a"} for n in "ab"]},
            "arms",
        ),
        (
            {"arms": [{"name": n, "share": 0.5 * (n != "c"), "control": n == "a"} for n in "abc"]},
            "arms.2.share",
        ),
        ({"start": "2026-11-25T00:00:00Z", "end": "2026-11-25T00:00:00Z"}, "end"),
        ({"end": "2020-01-01T00:00:00Z"}, "end"),
        ({"salt": "a b"}, "salt"),
        ({"window_s": 0}, "window_s"),
        ({"plan": {"power": 1}}, "plan.power"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_cannot_be_an_experiment(
    client: TestClient, fields: dict[str, Any], field: str
) -> None:
    refused(client.put(URL, json=design(**fields)), 422, field)
    assert client.get("/v1/experiments").json() == {"experiments": []}


def arm(**more: Any) -> dict[str, Any]:
    arms = [{"name": "a", "share": 0.1, "control": True}, {"name": "b", "share": 0.1, **more}]
    return {"arms": arms}


def test_what_the_models_cannot_do(client: TestClient, make_client: MakeClient) -> None:
    absent = arm(bundle={"name": "tiny", "version": 7})
    problem = refused(client.put(URL, json=absent), 422, "arms.1.bundle")
    assert "loaded are: tiny 1" in problem["detail"]
    unknown = arm(settings={"filter": {"colour": "red"}})
    refused(client.put(URL, json=unknown), 422, "arms.1.settings.filter.colour")
    there = arm(bundle={"name": "tiny", "version": 1}, settings={"filter": {"brand": "brand-0"}})
    made = client.put(URL, json=there).json()
    assert made["arms"][1]["settings"]["filter"] == {"brand": {"eq": "brand-0"}}
    refused(client.put("/v1/experiments/A b", json=there), 422, "name")


def test_two_that_change_the_same_thing(client: TestClient) -> None:
    put(client, scene="home")
    other = "/v1/experiments/other"
    problem = refused(client.put(other, json=design()), 409, "arms.1.settings.beam_width")
    assert "beams changes the beam_width in the scene home too" in problem["detail"]
    assert client.put(other, json=design(scene="cart")).status_code == 200
    assert client.put("/v1/experiments/third", json=arm(settings={"filter": {}})).is_success
    answer = recommend(client, user_id="ann", history=HISTORY, scene="home")
    names = [one["experiment"] for one in answer.get("experiments", [])]
    assert "beams" in names
    assert "other" not in names


def test_what_changes_once_it_runs(client: TestClient) -> None:
    small = [
        {"name": "a", "share": 0.1, "control": True},
        {"name": "b", "share": 0.1, "settings": {"beam_width": 50}},
    ]
    put(client, arms=small)
    grown = [{**one, "share": 0.4} for one in small]
    assert put(client, arms=grown, description="more")["arms"][0]["share"] == 0.4
    refused(client.put(URL, json={"arms": small}), 409, "arms.0.share")
    uneven = [{**grown[0], "share": 0.5}, grown[1]]
    refused(client.put(URL, json={"arms": uneven}), 409, "arms.1.share")
    refused(client.put(URL, json={"arms": grown, "salt": "other"}), 409, "salt")
    refused(client.put(URL, json={"arms": grown, "window_s": 5}), 409, "window_s")
    changed = [grown[0], {**grown[1], "settings": {"beam_width": 51}}]
    refused(client.put(URL, json={"arms": changed}), 409, "arms.1")


def test_every_trace_of_a_user_goes(client: TestClient, redis_url: str) -> None:
    put(client)
    client.put(f"{URL}/users/tester", json={"arm": "wide"})
    for user in ("ann-who-goes", "bob"):
        answer = recommend(client, user_id=user, history=HISTORY)
        client.post("/v1/events", json=[click(1, user, request_id=answer["request_id"])])
    before = report(client)
    assert sum(arm["clicking"]["users"] for arm in before["arms"]) == 2
    forget = experiments(client).forget
    assert client.portal is not None
    for user, was_there in (("ann-who-goes", True), ("tester", True), ("nobody", False)):
        assert client.portal.call(forget, user) is was_there
    after = report(client)
    assert sum(arm["clicking"]["users"] for arm in after["arms"]) == 1
    assert sum(arm["exposed_users"] for arm in after["arms"]) == 1
    with sync_redis.Redis.from_url(redis_url, decode_responses=True) as client_:
        assert not [key for key in client_.scan_iter() if "ann-who-goes" in key and "shown" in key]
    assert client.get(URL).json()["forced"] == {}


def test_a_batch_is_counted_too(client: TestClient) -> None:
    put(client)
    requests = [{"user_id": f"u{n}", "history": HISTORY} for n in range(8)]
    results = client.post("/v1/recommendations/batch", json={"requests": requests}).json()
    arms = Counter(one["answer"]["experiments"][0]["arm"] for one in results["results"])
    shown = {a["name"]: a["exposed_users"] for a in report(client)["arms"]}
    assert {name: n for name, n in shown.items() if n} == dict(arms)


def test_redis_away(make_client: MakeClient) -> None:
    client = make_client(redis_url="redis://127.0.0.1:1")
    assert recommend(client, user_id="ann", history=HISTORY)["source"] == "model"
    for response in (client.get(URL), client.put(URL, json=design()), client.get(f"{URL}/report")):
        problem = refused(response, 503)
        assert problem["type"] == "urn:sidrec:problem:experiments-unavailable"


def test_replicas_agree(make_client: MakeClient) -> None:
    """Of several that begin at once what cannot run together, one does; all follow it."""
    replicas = [make_client() for _ in range(3)]

    def begin(number: int) -> int:
        replica = replicas[number % len(replicas)]
        return replica.put(f"/v1/experiments/e{number}", json=design()).status_code

    with ThreadPoolExecutor() as pool:
        statuses = list(pool.map(begin, range(6)))
    assert sorted(statuses) == [200, 409, 409, 409, 409, 409]
    name = f"e{statuses.index(200)}"
    until = time.monotonic() + 20
    arms: set[str] = set()
    for replica in replicas:
        while "experiments" not in (answer := recommend(replica, user_id="ann", history=HISTORY)):
            assert time.monotonic() < until
        arms.add(answer["experiments"][0]["arm"])
        report(replica, name)
    assert len(arms) == 1
    assert sum(arm["exposed_users"] for arm in report(replicas[0], name)["arms"]) == 1
