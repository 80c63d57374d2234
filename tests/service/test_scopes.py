"""Every route says what a key needs for it, and keeps to it: a table made from the routes."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi import APIRouter
from starlette.testclient import TestClient

from model_store.bundle import Bundle
from service.api.scopes import OPEN, READ, Declared, ScopedRoute, Undeclared, declared
from service.app import create_app
from service.keys.key import SCOPES
from service.redis_server import EmbeddedRedis
from service.settings import Settings
from tests.service.conftest import PATIENT_MS
from tests.service.keys.made import SECRETS, bearer, key, one_per_scope, write

ROUTES = list(declared(create_app(Settings.model_construct())))
EXPECTED = {
    "DELETE /v1/experiments/{name}": "admin",
    "DELETE /v1/experiments/{name}/users/{user_id}": "admin",
    "DELETE /v1/items/{item_id}": "write",
    "DELETE /v1/models/{name}/{version}": "admin",
    "DELETE /v1/users/{user_id}": "write",
    "GET /": None,
    "GET /docs": None,
    "GET /docs/{name}": None,
    "GET /livez": None,
    "GET /metrics": "metrics",
    "GET /playground/{name}": None,
    "GET /readyz": None,
    "GET /v1/bundle": "read",
    "GET /v1/items": "read",
    "GET /v1/experiments": "admin",
    "GET /v1/experiments/{name}": "admin",
    "GET /v1/experiments/{name}/report": "admin",
    "GET /v1/experiments/{name}/report.html": "admin",
    "GET /v1/items/{item_id}": "read",
    "GET /v1/models": "admin",
    "GET /v1/items/{item_id}/describe": "read",
    "GET /v1/users/{user_id}/history": "read",
    "GET /v1/users/{user_id}/profile": "read",
    "POST /v1/events": "write",
    "POST /v1/models": "admin",
    "POST /v1/models/rollback": "admin",
    "POST /v1/models/{name}/{version}/activate": "admin",
    "POST /v1/models/{name}/{version}/warm-up": "admin",
    "POST /v1/experiments/{name}/stop": "admin",
    "POST /v1/items/{item_id}/similar": "read",
    "POST /v1/recommendations": "read",
    "POST /v1/recommendations/batch": "read",
    "POST /v1/search": "read",
    "PUT /v1/experiments/{name}": "admin",
    "PUT /v1/experiments/{name}/users/{user_id}": "admin",
    "PUT /v1/items": "write",
    "PUT /v1/items/{item_id}": "write",
    "PUT /v1/users/{user_id}/profile": "write",
}
SENT = [*SECRETS, "revoked", "expired", "wrong", "none", "no bearer"]


@pytest.fixture(scope="module")
def client(
    bundle: Bundle, redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    folder: Path = tmp_path_factory.mktemp("keys")
    past = datetime.now(UTC) - timedelta(seconds=1)
    revoked = key("revoked", "secret-revoked", *SCOPES)
    expired = key("expired", "secret-expired", *SCOPES, expires=past)
    file = write(folder / "keys.toml", *one_per_scope(), expired, revoked)
    settings = Settings(
        bundle=bundle.path,
        engine="fake",
        redis_url=redis_server.url,
        redis_timeout_ms=PATIENT_MS,
        keys_file=file,
    )
    with ExitStack() as stack:
        client = stack.enter_context(TestClient(create_app(settings)))
        assert client.get("/v1/items/item-1", headers=bearer("secret-revoked")).is_success
        write(file, *one_per_scope(), expired)
        while client.get("/v1/items/item-1", headers=bearer("secret-revoked")).is_success:
            pass
        yield client


def headers(sent: str) -> dict[str, str]:
    match sent:
        case "none":
            return {}
        case "wrong" | "revoked" | "expired":
            return dict(bearer(f"secret-{sent}"))
        case "no bearer":
            return {"Authorization": f"Basic {SECRETS['read']}"}
    return dict(bearer(SECRETS[sent]))


@pytest.mark.parametrize("sent", SENT)
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_each_route_lets_in_whom_it_says(client: TestClient, route: Declared, sent: str) -> None:
    path = re.sub(r"\{.*?\}", "nobody", route.path)
    answer = client.request(route.method, path, headers=headers(sent), content=b"{")
    challenge = answer.headers.get("WWW-Authenticate", "")
    if route.needs is None or sent == route.needs:
        # Through: what it says now is of the route and of a body that is none.
        assert answer.status_code in (200, 204, 404, 409, 422)
        assert not challenge
        return
    assert answer.headers["Content-Type"] == "application/problem+json"
    if sent in SECRETS:
        assert answer.status_code == 403
        assert answer.json()["type"] == "urn:sidrec:problem:forbidden"
        assert f'error="insufficient_scope", scope="{route.needs}"' in challenge
    else:
        assert answer.status_code == 401
        assert answer.json()["type"] == "urn:sidrec:problem:unidentified"
        assert challenge.startswith('Bearer realm="sidrec"')
        assert ("invalid_token" in challenge) == (sent in ("wrong", "revoked", "expired"))


def test_the_scope_of_each_route_was_meant() -> None:
    assert {f"{route.method} {route.path}": route.needs for route in ROUTES} == EXPECTED


def test_every_operation_of_the_document_is_in_the_table() -> None:
    document = create_app(Settings.model_construct()).openapi()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            needs = EXPECTED[f"{method.upper()} {path}"]
            assert operation["security"] == ([{"key": [needs]}] if needs else [])
            refusals = {"401", "403", "429"} & operation["responses"].keys()
            assert refusals == ({"401", "403", "429"} if needs else set())


def test_a_route_without_a_scope_cannot_be_added() -> None:
    async def route() -> None: ...

    with pytest.raises(Undeclared, match="/v1/new needs openapi_extra=READ"):
        APIRouter(route_class=ScopedRoute).add_api_route("/v1/new", route)
    app = create_app(Settings.model_construct())
    app.include_router(plain := APIRouter())
    plain.add_api_route("/v1/new", route, openapi_extra=READ)
    with pytest.raises(Undeclared, match="/v1/new is no ScopedRoute"):
        list(declared(app))


def test_a_route_for_everybody_says_so() -> None:
    assert OPEN == {"security": []}
