"""Versions that come and go by way of the endpoints, and that nothing changes where one cannot."""

import gc
import json
import shutil
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from starlette.testclient import TestClient

from model_store.bundle import Bundle
from model_store.store import Store
from service import memory
from service.app import create_app
from service.engine.torch.engine import TorchEngine
from service.errors import NotFound
from service.settings import Settings
from tests.service.conftest import MakeClient
from tests.service.stores import copied, with_version
from tests.service.test_api import recommend
from tests.service.test_metrics import scrape, value

WEIGHTS = "model/model.safetensors"


@pytest.fixture
def store(versions: tuple[Bundle, Bundle], tmp_path: Path) -> Store:
    return copied(versions, tmp_path / "store")


@pytest.fixture
def served(make_client: MakeClient, store: Store) -> TestClient:
    return make_client(store=str(store.root))


def load(client: TestClient, status: int = 201, **wanted: Any) -> Any:
    response = client.post("/v1/models", json=wanted)
    assert response.status_code == status, response.text
    return response.json()


def activate(client: TestClient, number: int, status: int = 200) -> Any:
    response = client.post(f"/v1/models/shop/{number}/activate")
    assert response.status_code == status, response.text
    return response.json()


def unload(client: TestClient, number: int, status: int = 204) -> None:
    response = client.delete(f"/v1/models/shop/{number}")
    assert response.status_code == status, response.text


def answering(client: TestClient) -> int:
    """The version that an answer names, all of whose items are its own."""
    answer = recommend(client, history=[f"item-{n}" for n in range(40, 60)], k=30)
    number = answer["bundle"]["version"]
    assert answer["source"] == "model"
    assert {item["item_id"].split("-")[0] for item in answer["items"]} <= {f"v{number}", "item"}
    assert any(item["item_id"].startswith(f"v{number}-") for item in answer["items"])
    assert client.get("/readyz").json()["bundle"] == answer["bundle"]
    return int(number)


def engine_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "sidrec-engine"}


def test_the_champion_is_served_at_the_start(
    make_client: MakeClient, store: Store, versions: tuple[Bundle, Bundle]
) -> None:
    assert answering(make_client(store=str(store.root))) == 1
    store.promote("shop", 2)
    client = make_client(store=str(store.root), model="shop")
    assert answering(client) == 2
    [only] = client.get("/v1/models").json()["models"]
    assert (only["name"], only["version"], only["active"]) == ("shop", 2, True)
    assert only["items"] == 60


def test_a_start_without_a_champion(store: Store, tmp_path: Path) -> None:
    def start(**options: Any) -> None:
        settings = Settings(engine="fake", state_dir=tmp_path / "state", **options)
        with TestClient(create_app(settings)):
            pass

    with pytest.raises(NotFound, match="there is no bundle 'hats'"):
        start(store=str(store.root), model="hats")
    with pytest.raises(NotFound, match="has no bundle"):
        start(store=str(tmp_path / "nowhere"))
    shutil.copytree(store.root / "shop" / "1", store.root / "hats" / "1")
    with pytest.raises(NotFound, match="has hats, shop: set SIDREC_MODEL"):
        start(store=str(store.root))
    with pytest.raises(NotFound, match="hats has no alias 'champion', only none"):
        start(store=str(store.root), model="hats")


def test_load_activate_roll_back_unload(served: TestClient) -> None:
    loaded = load(served, version=2)
    assert (loaded["version"], loaded["active"], loaded["requests"]) == (2, False, 0)
    assert answering(served) == 1
    assert load(served, 200, name="shop", version=2) == loaded  # once more changes nothing
    found = activate(served, 2)
    assert [(m["version"], m["active"]) for m in found["models"]] == [(1, False), (2, True)]
    assert found["previous"] == {"name": "shop", "version": 1}
    assert answering(served) == 2
    back = served.post("/v1/models/rollback").json()
    assert back["previous"] is None
    assert answering(served) == 1
    assert served.post("/v1/models/rollback").status_code == 409
    assert "shop 1 is active" in served.delete("/v1/models/shop/1").json()["detail"]
    unload(served, 2)
    assert [m["version"] for m in served.get("/v1/models").json()["models"]] == [1]
    assert answering(served) == 1
    unload(served, 2, 404)
    assert load(served, 200)["version"] == 1  # the champion, where nothing is named


def test_a_rollback_goes_back_step_by_step(
    make_client: MakeClient, store: Store, versions: tuple[Bundle, Bundle]
) -> None:
    with_version(store, versions[0], 3, lambda folder: None)
    client = make_client(store=str(store.root), max_models=3)
    for number in (2, 3):
        load(client, version=number)
        activate(client, number)
    previous = [client.post("/v1/models/rollback").json()["previous"] for _ in range(2)]
    assert previous == [{"name": "shop", "version": 1}, None]
    activate(client, 3)
    unload(client, 1)
    assert client.post("/v1/models/rollback").status_code == 409


def test_what_is_not_there(served: TestClient) -> None:
    missing = load(served, 404, version=7)
    assert missing["type"] == "urn:sidrec:problem:not-found"
    assert "shop has no version 7, only 1, 2" in missing["detail"]
    assert "no bundle 'hats'" in load(served, 404, name="hats")["detail"]
    assert load(served, 422, version=0)["errors"][0]["field"] == "version"
    not_loaded = activate(served, 2, 404)
    assert not_loaded["type"] == "urn:sidrec:problem:model-not-loaded"
    assert not_loaded["detail"] == "shop 2 is not loaded, only shop 1"
    assert served.post("/v1/models/shop/2/warm-up").status_code == 404
    assert served.post("/v1/models/shop/x/activate").status_code == 422


def test_a_limit_of_versions(
    served: TestClient, store: Store, versions: tuple[Bundle, Bundle]
) -> None:
    with_version(store, versions[0], 3, lambda folder: None)
    load(served, version=2)
    refused = load(served, 409, version=3)
    assert "2 of 2 versions are loaded (shop 1, shop 2): unload one first" in refused["detail"]
    unload(served, 2)
    load(served, version=3)


def test_a_bundle_that_is_served_alone(client: TestClient) -> None:
    assert "SIDREC_STORE" in load(client, 409, version=2)["detail"]


def test_an_engine_that_must_be_alone(served: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = served.app_state["service"].holder.current.engine
    monkeypatch.setattr(type(engine), "alone", "it fills the whole processor")
    assert load(served, 409, version=2)["detail"] == "it fills the whole processor"


def spoilt(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], torch.nan)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def of_another_kind(folder: Path) -> None:
    file = folder / "model" / "config.json"
    config = json.loads(file.read_text()) | {"architectures": ["MambaForCausalLM"]}
    file.write_text(json.dumps(config))


def lacking(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


@pytest.fixture
def torch_served(
    make_client: MakeClient, store: Store, versions: tuple[Bundle, Bundle]
) -> Iterator[TestClient]:
    """With the real engine; and whatever a test tried, nothing is left of it and all goes on."""
    before = engine_threads()
    client = make_client(store=str(store.root), engine="torch", engine_options={"device": "cpu"})
    threads = engine_threads() - before
    yield client
    found = client.get("/v1/models").json()
    assert [m["version"] for m in found["models"]] == [1]
    assert found["loading"] is None
    assert engine_threads() - before == threads
    assert answering(client) == 1
    load(client, version=2)
    activate(client, 2)
    assert answering(client) == 2


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (spoilt, "a search of the warm-up found 0 SIDs with a score instead of 20"),
        (of_another_kind, "architecture 'MambaForCausalLM'"),
        (lacking, "the weights lack model.layers.1.mlp.down_proj.weight"),
        (lambda folder: (folder / WEIGHTS).unlink(), "no *.safetensors with model.embed_tokens"),
        (lambda folder: (folder / "catalogue.parquet").write_text("no"), "not a catalogue"),
    ],
)
def test_a_version_that_cannot_be_served(
    torch_served: TestClient,
    store: Store,
    versions: tuple[Bundle, Bundle],
    edit: Any,
    reason: str,
) -> None:
    with_version(store, versions[1], 3, edit)
    problem = load(torch_served, 422, version=3)
    assert problem["type"] == "urn:sidrec:problem:model-unusable"
    assert problem["detail"].startswith("shop 3: ")
    assert reason in problem["errors"][0]["message"]
    samples = scrape(torch_served)
    assert value(samples, "model_load_seconds_count", outcome="failed") == 1


def test_a_version_that_is_damaged(
    torch_served: TestClient, store: Store, versions: tuple[Bundle, Bundle]
) -> None:
    folder = with_version(store, versions[1], 3, lambda folder: None)
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    (folder / "model" / "config.json").unlink()
    reasons = [error["message"] for error in load(torch_served, 422, version=3)["errors"]]
    assert [reason.split(" has the checksum")[0] for reason in reasons] == [
        "model/config.json is missing",
        WEIGHTS,
    ]
    shutil.rmtree(folder)
    shutil.copytree(versions[1].path, folder)
    assert "its manifest says that it is shop 2" in load(torch_served, 422, version=3)["detail"]


def test_a_version_that_changes_while_it_is_loaded(
    torch_served: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, file = TorchEngine.__init__, store.path("shop", 2) / WEIGHTS

    def changing(self: TorchEngine, bundle: Bundle, **options: Any) -> None:
        file.write_bytes(file.read_bytes())
        made(self, bundle, **options)

    with monkeypatch.context() as patch:
        patch.setattr(TorchEngine, "__init__", changing)
        assert "changed while it was loaded" in load(torch_served, 422, version=2)["detail"]


def test_a_version_that_does_not_fit(
    torch_served: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(memory, "host_room", lambda: (100 << 20, "the control group"))
        problem = load(torch_served, 507, version=2)
    assert problem["type"] == "urn:sidrec:problem:does-not-fit"
    assert problem["detail"].startswith("shop 2 needs 0.25")
    assert "cache of prompts 0.25" in problem["detail"]
    assert problem["detail"].endswith("and the control group has 0.0977 GiB left")


def test_files_that_change_while_they_are_served(make_client: MakeClient, store: Store) -> None:
    client = make_client(store=str(store.root), engine="torch", engine_options={"device": "cpu"})
    wanted = {"history": ["item-41", "item-42"], "k": 20}
    before = recommend(client, **wanted)["items"]
    for path in store.path("shop", 1).rglob("*"):
        if path.is_file():
            with path.open("r+b") as file:
                file.write(bytes(1000))
                file.truncate(1000)
    assert recommend(client, **wanted)["items"] == before
    shutil.rmtree(store.path("shop", 1))
    assert recommend(client, **wanted | {"history": ["item-43"]})["source"] == "model"


def test_a_version_that_leaves_gives_its_memory_back(served: TestClient) -> None:
    holder = served.app_state["service"].holder
    load(served, version=2)
    model = holder.get("shop", 2)
    things = [weakref.ref(thing) for thing in (model.bundle, model.engine, model.recommender)]
    del model
    recommend(served, history=["item-41"])
    gc.disable()  # what is loaded at the start is never looked at for cycles
    try:
        unload(served, 2)
        for _ in range(100):
            if not any(thing() for thing in things):
                break
            served.get("/livez")
        assert [thing() for thing in things] == [None, None, None]
    finally:
        gc.enable()


def test_requests_in_flight_keep_their_version(make_client: MakeClient, store: Store) -> None:
    client = make_client(store=str(store.root), engine_options={"delay_ms": 400})
    load(client, version=2)
    answers: list[int] = []
    asker = threading.Thread(target=lambda: answers.append(answering_alone(client)))
    asker.start()
    while not client.get("/v1/models").json()["models"][0]["requests"]:
        pass
    activate(client, 2)
    unload(client, 1)  # when the answer is out
    asker.join()
    assert answers == [1]
    assert answering(client) == 2


def answering_alone(client: TestClient) -> int:
    return int(recommend(client, history=["item-41"])["bundle"]["version"])


def test_what_is_counted(served: TestClient) -> None:
    load(served, version=2)
    activate(served, 2)
    activate(served, 2)
    served.post("/v1/models/rollback")
    samples = scrape(served)
    for number, active in ((1, 1), (2, 0)):
        labels = {"name": "shop", "version": str(number)}
        assert value(samples, "bundle_info", engine="fake", **labels) == 1
        assert value(samples, "bundle_active", **labels) == active
    assert value(samples, "model_swaps_total", action="activate") == 1
    assert value(samples, "model_swaps_total", action="rollback") == 1
    assert value(samples, "model_load_seconds_count", outcome="loaded") == 1
    unload(served, 2)
    samples = scrape(served)
    assert ("sidrec_bundle_active", (("name", "shop"), ("version", "2"))) not in samples


def test_a_version_warms_up_on_demand(served: TestClient) -> None:
    done = served.post("/v1/models/shop/1/warm-up").json()
    assert done["searches"] == 4
    served.app_state["service"].holder.current.engine.fails = True
    assert served.post("/v1/models/shop/1/warm-up").status_code == 503
