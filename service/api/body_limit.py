"""Bodies that are too large are refused before anything parses them."""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import CLIENT_GONE, plain_kind, problem


class BodyLimit:
    """Refuses with 413 by Content-Length at once, and a body without one as soon as it exceeds.

    Starlette's own answers in plain text, and only once a route reads the body.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._detail = f"a body has at most {max_bytes} bytes"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length) > self._max_bytes:
            response = problem(scope["state"]["request_id"], plain_kind(413), self._detail)
            await response(scope, receive, send)
            return
        received, complete = 0, False

        async def receive_counted() -> Message:
            nonlocal received, complete
            message = await receive()
            if message["type"] == "http.disconnect" and not complete:
                # What reads the body would take it for one that is no JSON.
                raise HTTPException(CLIENT_GONE, "the client has gone")
            if message["type"] == "http.request":
                complete = not message.get("more_body", False)
                received += len(message.get("body", b""))
                if received > self._max_bytes:
                    raise HTTPException(413, self._detail)
            return message

        await self._app(scope, receive_counted, send)
