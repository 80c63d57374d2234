"""Requests have a time to arrive in. Who sends a byte now and then would else hold a connection for
as long as he likes (slow loris); uvicorn only bounds the time between two requests."""

from asyncio import Transport
from typing import Any

import structlog
from structlog.typing import FilteringBoundLogger

from service.request_head import BoundedHead

_log: FilteringBoundLogger = structlog.get_logger(__name__)


class TimedRequest(BoundedHead):
    """Answers 408 to a request that is not there `timeout_s` seconds after its first byte, and
    closes the connection; one that never brings a byte is closed as well. See `timed`."""

    timeout_s: float

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._due: Any = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        self._expect()  # whatever it is: line ends between two requests count too
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._expect()
        super().on_message_begin()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._arrived()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        super().connection_lost(exc)

    def _expect(self) -> None:
        if self._due is None:
            self._due = self.loop.call_later(self.timeout_s, self._late)

    def _arrived(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _late(self) -> None:
        self._due = None
        if self.transport.is_closing():
            return
        if self._answers_another():
            self._expect()
            return
        begun = self._head_bytes > 0 if self._in_head else not self.cycle.response_started
        if begun:
            _log.warning("request_too_slow", limit_s=self.timeout_s)
            detail = f"a request has {self.timeout_s:g} s to arrive in"
            self.refuse(408, "Request Timeout", detail)
        else:
            self.transport.close()

    def _answers_another(self) -> bool:
        """Whether an earlier request of this connection still waits for its answer, and may be
        what keeps the rest of this one from being read."""
        if self._in_head:
            return self.cycle is not None and not self.cycle.response_complete
        return bool(self.pipeline)


def timed(seconds: float) -> type[TimedRequest]:
    """The protocol with this limit, as uvicorn takes it: as a class."""
    return type(TimedRequest.__name__, (TimedRequest,), {"timeout_s": seconds})
