"""What a key must be allowed to do for a route, said where the route is declared:

    router = APIRouter(tags=["items"], route_class=ScopedRoute)

    @router.get("/v1/items/{item_id:id}", openapi_extra=READ, …)

The OpenAPI document says the same. A route that says nothing keeps the application from being made,
so none is open by oversight.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.types import Receive, Send
from starlette.types import Scope as Asgi

from service.api.guard import Guard
from service.api.problems import documented
from service.keys.key import Scope

_SCHEME = "key"


def _needs(scope: Scope) -> dict[str, Any]:
    return {"security": [{_SCHEME: [scope]}]}


READ, WRITE, ADMIN, METRICS = _needs("read"), _needs("write"), _needs("admin"), _needs("metrics")
OPEN: dict[str, Any] = {"security": []}
"""For everybody, with a key or without."""


class Undeclared(Exception):
    """A route does not say what a key must be allowed to do for it."""


class ScopedRoute(APIRoute):
    """Refuses whoever may not ask before the body is read, and documents that it does."""

    def __init__(self, path: str, endpoint: Any, **options: Any) -> None:
        declared = (options.get("openapi_extra") or {}).get("security")
        if declared is None:
            raise Undeclared(f"{path} needs openapi_extra=READ, WRITE, ADMIN, METRICS or OPEN")
        self.needs: Scope | None = declared[0][_SCHEME][0] if declared else None
        if self.needs is not None:
            options["responses"] = {**(options.get("responses") or {}), **documented(401, 403, 429)}
        super().__init__(path, endpoint, **options)

    async def handle(self, scope: Asgi, receive: Receive, send: Send) -> None:
        if self.needs is not None:
            guard: Guard = scope["state"]["service"].guard
            send = await guard.admit(scope, self.needs, send)
        await super().handle(scope, receive, send)


class ScopedApp(FastAPI):
    """An application whose document says how a key is sent."""

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        document["components"]["securitySchemes"] = {
            _SCHEME: {
                "type": "http",
                "scheme": "bearer",
                "description": "A key of this service; the names are scopes that it needs."
                " Nobody needs one where the service was started without keys.",
            }
        }
        return document


def require_scopes(app: FastAPI) -> None:
    """Raises `Undeclared` for a route of `app` that does not say what it needs."""
    for _ in declared(app):
        pass


class Declared(NamedTuple):
    method: str
    path: str
    needs: Scope | None


def declared(app: FastAPI) -> Iterator[Declared]:
    """Every route of `app` with what it needs; None: nothing.

    Raises `Undeclared` for one that does not say, but for the document itself.
    """
    for context in iter_route_contexts(app.routes):
        route, path = context.original_route, str(context.path_format)
        if not isinstance(route, ScopedRoute):
            if path == app.openapi_url:
                continue
            raise Undeclared(f"{path} is no ScopedRoute")
        for method in sorted(context.methods or ()):
            yield Declared(method, path, route.needs)
