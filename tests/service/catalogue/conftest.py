"""The demo's catalogue with an engine that needs no model, and a Redis for what changes."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from model_store.bundle import Bundle
from service.catalogue.changes import Changes
from service.catalogue.live import LiveCatalogue
from service.eligibility.policy import Policy
from service.engine.fake import FakeEngine
from service.redis_client import Server, connect
from service.settings import Settings
from tests.service.conftest import PATIENT_MS

Open = Callable[..., Awaitable[LiveCatalogue]]


@pytest.fixture(scope="session")
def demo() -> Bundle:
    """It has a quantizer, and an extra level of few codes."""
    return Bundle.load(Settings.model_fields["bundle"].default)


@pytest.fixture(scope="session")
def engines(demo: Bundle, bundle: Bundle) -> Iterator[dict[str, FakeEngine]]:
    with FakeEngine(demo) as one, FakeEngine(bundle) as other:
        yield {"demo": one, bundle.name: other}


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Server]:
    client = connect(redis_url, timeout_ms=PATIENT_MS, connect_timeout_ms=PATIENT_MS)
    yield client
    await client.aclose()


@pytest.fixture
async def open_live(
    demo: Bundle, engines: dict[str, FakeEngine], client: Server
) -> AsyncIterator[Open]:
    """Opens catalogues that share one Redis, as processes do."""
    opened: list[LiveCatalogue] = []

    async def open_one(
        bundle: Bundle = demo, name: str = "", redis: Server | None = None
    ) -> LiveCatalogue:
        changes = Changes(redis or client, "shop", name or f"{bundle.name}/{bundle.version}")
        opened.append(
            await LiveCatalogue.open(bundle, engines[bundle.name], Policy(), changes, poll_s=0.02)
        )
        return opened[-1]

    yield open_one
    for live in opened:
        await live.close()
