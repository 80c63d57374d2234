"""Runs the application under uvicorn: one process, its signals, and a start that fails plainly."""

import gc
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

import structlog
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from model_store.errors import BundleError, ModelStoreError
from service.app import create_app
from service.errors import SidrecError
from service.keys.file import KeysInvalid
from service.logs import configure_logs
from service.memory import keep_little
from service.settings import Settings
from service.slow_request import timed

_log: FilteringBoundLogger = structlog.get_logger(__name__)


class StartFailed(Exception):
    """The service did not start; `problems` has one line for each reason."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


def run(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT, and returns when requests in flight have been answered.

    Raises `StartFailed` where the start fails for a reason that its owner can mend.
    """
    configure_logs(settings)
    keep_little()
    # So long, at most, waits an engine's thread that comes back from its kernels for Python's lock
    # while the event loop works. By default it would be 5 ms, which is half of a small search.
    sys.setswitchinterval(50e-6)
    try:
        app = _Watched(create_app(settings))
    except SidrecError as error:
        raise StartFailed(_lines(error)) from error
    server = _Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            loop=settings.event_loop,
            http=timed(settings.request_timeout_s),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=settings.shutdown_timeout_s,
        ),
        gc_freeze=settings.gc_freeze,
    )
    _allow_connections()
    # uvicorn raises the signal once more when it is done. By default that would end the process
    # with the signal's exit code, as if it had not been asked politely.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    try:
        server.run()
    except SystemExit as end:
        code = end.code
    else:
        return
    if app.failure is not None:
        raise StartFailed(_lines(app.failure))
    if code:
        raise StartFailed([f"cannot listen on {settings.host}, port {settings.port}"])


class _Server(uvicorn.Server):
    """Says where it listens once it does, with everything loaded.

    With `gc_freeze`, what is there by then is not looked at again by the garbage collector, whose
    full passes would stop every request for as long as they take.
    """

    def __init__(self, config: uvicorn.Config, *, gc_freeze: bool) -> None:
        super().__init__(config)
        self._gc_freeze = gc_freeze

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._gc_freeze:
            gc.collect()
            gc.freeze()
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        _log.info("listening", url=url, docs=f"{url}/docs")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # By default only SIGINT is a sign of impatience.
        self.force_exit = self.should_exit
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As by default, but who is in a hurry does not leave a Redis and an engine behind."""
        await super().shutdown(sockets)
        if self.force_exit:
            for task in self.server_state.tasks:
                task.cancel()
            await self.lifespan.shutdown()


class _Watched:
    """The application; keeps what its start failed with, so that it does not become a trace."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.failure: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        failed = False

        async def send_without_trace(message: Message) -> None:
            nonlocal failed
            if message["type"] == "lifespan.startup.failed":
                failed, message = True, {**message, "message": ""}
            await send(message)

        try:
            await self._app(scope, receive, send_without_trace)
        except Exception as error:
            if not failed:
                raise
            self.failure = error


def _allow_connections() -> None:
    """Lets this process open as many files as it may: each connection is one, and the usual limit
    of 1,024 is there for programs that use select()."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some systems have a limit that they do not grant.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _lines(error: Exception) -> list[str]:
    """The reasons, one line each; raises an error that nobody but a programmer can mend."""
    if isinstance(error, BundleError | KeysInvalid):
        return error.problems
    if isinstance(error, SidrecError | ModelStoreError):
        return str(error).splitlines()
    raise error


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(0)
