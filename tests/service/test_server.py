"""What the server does around its start."""

import asyncio
import gc

import pytest
import uvicorn
from starlette.applications import Starlette

from service.server import _Server


@pytest.mark.parametrize("freeze", [True, False])
async def test_what_is_loaded_is_spared_from_garbage_collection(freeze: bool) -> None:
    config = uvicorn.Config(Starlette(), port=0, lifespan="off", log_config=None)
    server = _Server(config, gc_freeze=freeze)
    try:
        async with asyncio.timeout(30):
            serving = asyncio.create_task(server.serve())
            while True:
                await asyncio.sleep(0.01)
                if server.started:
                    break
            assert (gc.get_freeze_count() > 0) == freeze
            server.should_exit = True
            await serving
    finally:
        gc.unfreeze()
