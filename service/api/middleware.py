"""What surrounds every request: its id, its log line, its metrics, and a 500 without a trace."""

import re
import secrets
from time import perf_counter

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars
from structlog.typing import FilteringBoundLogger

from service.api.problems import CLIENT_GONE, INTERNAL, problem
from service.keys.key import ANONYMOUS
from service.metrics.http import HttpMetrics
from service.tracing import QUIET, Tracing

_HEADER = "X-Request-ID"
_TOKEN = re.compile(r"[A-Za-z0-9._-]{1,128}")

_log: FilteringBoundLogger = structlog.get_logger(__name__)


class RequestScope:
    """Gives a request its id and tells log and metrics how it ended.

    Routes are named by template: a path can hold a user id, and log lines hold none.
    """

    def __init__(self, app: ASGIApp, metrics: HttpMetrics, tracing: Tracing) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        request_id = _request_id(scope)
        scope.setdefault("state", {}).update(request_id=request_id, principal=ANONYMOUS, batch=None)
        clear_contextvars()
        bind_contextvars(request_id=request_id)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[_HEADER] = request_id
            await send(message)

        try:
            with self._tracing.request() as trace_id:
                if trace_id is not None:
                    bind_contextvars(trace_id=trace_id)
                await self._app(scope, receive, send_with_id)
        except Exception:
            _log.exception("internal error")
            if status:
                raise  # half an answer is out; the server must break the connection
            response = problem(request_id, INTERNAL, "The log has more under this request id.")
            await response(scope, receive, send_with_id)
        finally:
            self._finish(scope, status or CLIENT_GONE, perf_counter() - began)

    def _finish(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path_format", None) or "unmatched"
        said = get_contextvars().get("problem")
        self._metrics.request(route, scope["method"], status, seconds, said)
        log = _log.debug if route in QUIET else _log.info
        log(
            "request",
            method=scope["method"],
            route=route,
            status=status,
            duration_ms=round(seconds * 1000, 3),
        )


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get(_HEADER, "")
    return given if _TOKEN.fullmatch(given) else secrets.token_hex(16)
