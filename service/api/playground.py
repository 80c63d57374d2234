"""`/`: a page to try the model, made of files that come with the service. It uses the public API
and nothing else."""

from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import Response

from service.api.scopes import OPEN, ScopedRoute
from service.errors import NotFound

router = APIRouter(route_class=ScopedRoute, include_in_schema=False)

_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none';"
    " object-src 'none'"
)
_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
_FILES = {
    file.name: file
    for file in files("service.playground").iterdir()
    if file.name.rpartition(".")[2] in _TYPES
}


@router.get("/", openapi_extra=OPEN)
async def page() -> Response:
    """The page."""
    return _sent("index.html")


@router.get("/playground/{name}", openapi_extra=OPEN)
async def part(name: str) -> Response:
    """What the page loads."""
    if name not in _FILES:
        raise NotFound("the playground has no such part")
    return _sent(name)


def _sent(name: str) -> Response:
    # Asked for anew each time: parts of two releases do not go together.
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
    return Response(
        _FILES[name].read_bytes(), media_type=_TYPES[name.rpartition(".")[2]], headers=headers
    )
