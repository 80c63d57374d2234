"""A transport that sends for real, and knows how often."""

import asyncio

import httpx2


class Counting(httpx2.AsyncBaseTransport):
    """`sent` has the method and path of every request, in order."""

    def __init__(self) -> None:
        self._real = httpx2.AsyncHTTPTransport()
        self.sent: list[str] = []
        self._sending = asyncio.Condition()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        async with self._sending:
            self.sent.append(f"{request.method} {request.url.path}")
            self._sending.notify_all()
        return await self._real.handle_async_request(request)

    async def has_sent(self, number: int) -> None:
        """Returns once so many requests have been begun."""
        async with self._sending:
            await self._sending.wait_for(lambda: len(self.sent) >= number)

    async def aclose(self) -> None:
        await self._real.aclose()
