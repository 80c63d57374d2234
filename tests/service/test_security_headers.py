"""What every answer carries, whoever made it."""

import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from service.engine.fake import FakeEngine
from tests.service.conftest import MakeClient
from tests.service.keys.made import key
from tests.system import program

ANSWERS = [
    ("GET", "/livez", 200),
    ("GET", "/v1/items/item-1", 200),
    ("DELETE", "/v1/users/ann", 204),
    ("GET", "/openapi.json", 200),
    ("GET", "/nowhere", 404),
    ("PATCH", "/v1/items", 405),
    ("POST", "/v1/recommendations", 422),
]


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS)
def test_every_answer_is_secured(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    secured(answer.headers)


def secured(headers: Mapping[str, str]) -> None:
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"


def test_refusals_and_failures_too(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyed = make_client(keys=(key("a", "a", "read"),))
    for path, status in (("/v1/items/item-1", 401), ("/metrics", 401)):
        answer = keyed.get(path)
        assert answer.status_code == status
        secured(answer.headers)
    client = make_client()
    large = client.post("/v1/recommendations", content=b"x" * (2 << 20))
    assert large.status_code == 413
    secured(large.headers)

    async def broken(*_: object) -> None:
        raise RuntimeError("a-detail-of-the-inside")

    monkeypatch.setattr(FakeEngine, "search", broken)
    failed = client.post("/v1/recommendations", json={"history": ["item-1"]})
    assert failed.status_code == 500
    secured(failed.headers)
    assert "inside" not in failed.text
    assert "Traceback" not in failed.text


def test_the_page_of_the_document_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "://" not in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script-src 'self' 'sha256-" in policy
    for name, kind in (
        ("swagger-ui-bundle.js", "text/javascript"),
        ("swagger-ui.css", "text/css"),
        ("favicon.png", "image/png"),
    ):
        assert f"/docs/{name}" in page.text
        asset = client.get(f"/docs/{name}")
        assert asset.headers["content-type"].startswith(kind)
        assert len(asset.content) > 1000
        assert asset.headers["cache-control"] == "public, max-age=86400"
    assert client.get("/docs/redoc.standalone.js").status_code == 422


@contextmanager
def running(server: uvicorn.Server) -> Iterator[int]:
    """Serves in a thread; the port."""
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def beside(client: TestClient) -> uvicorn.Server:
    """A server of the application of a client, which has started it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await client.app({**scope, "state": dict(client.app_state)}, receive, send)

    return uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_config=None))


def test_a_browser_shows_the_page(client: TestClient, tmp_path: Path) -> None:
    """Its policy keeps out nothing that it needs."""
    browser = program("chromium")
    with running(beside(client)) as port:
        done = subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                f"--user-data-dir={tmp_path}",
                "--virtual-time-budget=15000",
                "--enable-logging=stderr",
                "--dump-dom",
                f"http://127.0.0.1:{port}/docs",
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    assert "Recommendations by generative recommenders" in done.stdout
    assert 'data-path="/v1/recommendations/batch"' in done.stdout
    assert "Content Security Policy" not in done.stderr
