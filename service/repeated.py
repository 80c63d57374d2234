"""Work that is done again and again beside the requests."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress


@asynccontextmanager
async def repeated(work: Callable[[], Awaitable[object]], every_s: float) -> AsyncIterator[None]:
    """Until left, awaits `work()` again and again with `every_s` seconds before each. Leaving waits
    for the one under way. What it raises ends it, and is raised when it is left."""
    left = asyncio.Event()
    task = asyncio.create_task(_repeat(work, every_s, left))
    try:
        yield
    finally:
        # Not by cancelling it: whoever swallows that would keep the process from ending.
        left.set()
        await task


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Waits until the event is set, or until the time is over; whether it is set then."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


async def _repeat(
    work: Callable[[], Awaitable[object]], every_s: float, left: asyncio.Event
) -> None:
    while not await set_within(left, every_s):
        await work()
