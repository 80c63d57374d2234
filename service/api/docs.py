"""`/docs`: the document as a page, with everything that it is made of, so that it opens offline."""

import base64
import hashlib
import re
from importlib.resources import files
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse, Response

from service.api.scopes import OPEN, ScopedRoute

router = APIRouter(route_class=ScopedRoute, include_in_schema=False)

_ASSETS = files("fastapi_offline") / "static"
_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
Asset = Literal["swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"]


@router.get("/docs", openapi_extra=OPEN)
async def docs(request: Request) -> HTMLResponse:
    """The page."""
    root = request.scope.get("root_path", "").rstrip("/")
    page = get_swagger_ui_html(
        openapi_url=f"{root}{request.app.openapi_url}",
        title=request.app.title,
        swagger_js_url=f"{root}/docs/swagger-ui-bundle.js",
        swagger_css_url=f"{root}/docs/swagger-ui.css",
        swagger_favicon_url=f"{root}/docs/favicon.png",
    )
    page.headers["Content-Security-Policy"] = _policy(bytes(page.body))
    return page


@router.get("/docs/{name}", openapi_extra=OPEN)
async def asset(name: Asset) -> Response:
    """What the page loads."""
    content = (_ASSETS / name).read_bytes()
    return Response(
        content, media_type=_TYPES[name], headers={"Cache-Control": "public, max-age=86400"}
    )


def _policy(page: bytes) -> str:
    """Allows the page what it has and loads from here; its own script by its digest."""
    scripts = re.findall(rb"<script>(.*?)</script>", page, re.DOTALL)
    own = "".join(
        f" 'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"
        for script in scripts
    )
    return (
        f"default-src 'self'; script-src 'self'{own}; style-src 'self' 'unsafe-inline';"
        " img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
