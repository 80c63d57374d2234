"""Work in the background: again and again, never cut off, and over when it is left."""

import asyncio
import time

import pytest

from service.repeated import repeated


async def test_again_and_again_until_left() -> None:
    times: list[float] = []
    thrice = asyncio.Event()

    async def work() -> None:
        times.append(time.perf_counter())
        if len(times) == 3:
            thrice.set()

    began = time.perf_counter()
    async with repeated(work, 0.02):
        assert not times
        async with asyncio.timeout(10):
            await thrice.wait()
    done = len(times)
    pauses = [after - before for before, after in zip([began, *times], times, strict=False)]
    assert min(pauses) > 0.015
    await asyncio.sleep(0.05)
    assert len(times) == done


async def test_leaving_waits_for_what_is_under_way_and_for_nothing_else() -> None:
    begun, ended = asyncio.Event(), False

    async def work() -> None:
        nonlocal ended
        begun.set()
        await asyncio.sleep(0.05)
        ended = True

    async with asyncio.timeout(10):
        async with repeated(work, 0.01):
            await begun.wait()
            assert not ended
        assert ended
        async with repeated(work, 3600):
            pass


async def test_what_fails_is_told_at_the_end() -> None:
    calls = 0

    async def work() -> None:
        nonlocal calls
        calls += 1
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        async with repeated(work, 0.001):
            await asyncio.sleep(0.05)
    assert calls == 1
