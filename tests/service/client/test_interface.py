"""The client and the OpenAPI document say the same, and importing it is cheap."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from pydantic import BaseModel

from service import client
from service.client import errors
from tests.docs.blocks import ROOT

SCHEMAS: dict[str, Any] = json.loads((ROOT / "docs" / "openapi.json").read_text())["components"][
    "schemas"
]
ANSWERS: dict[type[BaseModel], str] = {
    client.ArmName: "ArmName",
    client.BatchOutcome: "BatchOutcome",
    client.BatchResult: "BatchResult",
    client.BatchResults: "BatchResults",
    client.BatchWritten: "BatchWritten",
    client.BeamLevel: "LevelOfBeam",
    client.BeamPrefix: "PrefixShown",
    client.BundleName: "BundleName",
    client.Description: "Description",
    client.EventsAccepted: "EventsAccepted",
    client.FieldError: "FieldError",
    client.Item: "Item",
    client.ItemWritten: "ItemWritten",
    client.Level: "LevelShown",
    client.ProblemDetails: "Problem",
    client.Recommendations: "Recommendations",
    client.RecommendedItem: "RecommendedItem",
    client.SearchResults: "SearchResults",
    client.StoredEvent: "StoredEvent",
    client.UserHistory: "UserHistory",
    client.UserProfile: "UserProfile",
}
# Beside what a method takes by itself.
REQUESTS: dict[type, tuple[str, set[str]]] = {
    client.Ask: ("RecommendationRequest", {"user_id"}),
    client.NamedAsk: ("RecommendationRequest", set()),
    client.SearchAsk: ("SearchRequest", {"query"}),
    client.SimilarAsk: ("SimilarRequest", set()),
    client.Event: ("NewEvent", set()),
    client.Change: ("NamedChange", set()),
}


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.__name__)
def test_answers_have_the_fields_of_the_document(answer: type[BaseModel]) -> None:
    assert set(answer.model_fields) == set(SCHEMAS[ANSWERS[answer]]["properties"])
    # What the service may leave out has a default.
    optional = {name for name, field in answer.model_fields.items() if not field.is_required()}
    left_out = set(answer.model_fields) - set(SCHEMAS[ANSWERS[answer]].get("required", ()))
    assert left_out <= optional


@pytest.mark.parametrize("request_type", REQUESTS, ids=lambda one: one.__name__)
def test_requests_have_the_fields_of_the_document(request_type: type) -> None:
    name, by_itself = REQUESTS[request_type]
    assert set(get_type_hints(request_type)) | by_itself == set(SCHEMAS[name]["properties"])


def test_every_public_answer_is_held_to_it() -> None:
    public = [getattr(client, name) for name in client.__all__]
    models = {one for one in public if issubclass(one, BaseModel)}
    assert models == set(ANSWERS)


def test_every_error_stands_in_the_tree() -> None:
    tree = errors.__doc__ or ""
    kinds = [one for one in vars(errors).values() if isinstance(one, type)]
    for kind in kinds:
        if issubclass(kind, client.ClientError):
            assert f"{kind.__name__} " in tree or f"{kind.__name__}\n" in tree
            assert kind.__name__ in client.__all__


def test_importing_it_brings_neither_model_nor_service() -> None:
    script = "import sys, service.client; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = set(done.stdout.split())
    assert "httpx2" in loaded
    assert not loaded & {"torch", "vllm", "numpy", "fastapi", "redis", "model_store"}


def test_it_is_typed_for_its_users() -> None:
    assert (Path(client.__file__).parents[1] / "py.typed").exists()
