"""Refuses at the door what would only wait, before its body is parsed."""

from collections.abc import Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from service.api.scopes import ScopedRoute
from service.api.state import caller_of, service_of

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Admitted(ScopedRoute):
    """A route whose answers come from the engine's queue.

    A request with a deadline is let in whatever the queue: if not the model, then popular items
    answer it in time. Its own deadline stands in the body, which is looked through for the name,
    not read.
    """

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def admitted(request: Request) -> Response:
            service, caller = service_of(request), caller_of(request)
            if service.queue.full_for(caller) and not (
                service.settings.deadline_ms or b'"deadline_ms"' in await request.body()
            ):
                service.queue.check(caller)
            return await handle(request)

        return admitted
