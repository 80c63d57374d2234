"""Heads of requests have an end. uvicorn's protocol keeps whatever of a head arrives, for as long
as it arrives, before any application can say that this is enough."""

import json
from typing import Any

import structlog
from structlog.typing import FilteringBoundLogger
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 << 10
"""Request line and headers: eight times what proxies let through."""

_log: FilteringBoundLogger = structlog.get_logger(__name__)


class BoundedHead(HttpToolsProtocol):
    """Answers 431 to a head that is longer than `MAX_HEAD_BYTES` and what its first and its last
    read may bring beyond it, and closes the connection. Trailers of a body, which nobody reads, are
    dropped."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._in_head = True
        self._head_bytes = 0
        self._ended_one = False

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._ended_one = True

    def data_received(self, data: bytes) -> None:
        self._ended_one = False
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            # Nobody says how much of a read that began with another request is this one's.
            self._head_bytes += 1 if self._ended_one else len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                _log.warning("head_too_large", limit=MAX_HEAD_BYTES)
                detail = f"request line and headers have at most {MAX_HEAD_BYTES} bytes"
                self.refuse(431, "Request Header Fields Too Large", detail)

    def refuse(self, status: int, title: str, detail: str) -> None:
        """Answers before there is an application to do it, and closes the connection."""
        problem = {"type": "about:blank", "title": title, "status": status, "detail": detail}
        content = json.dumps(problem).encode()
        self.transport.write(
            f"HTTP/1.1 {status} {title}\r\n".encode()
            + b"content-type: application/problem+json\r\nconnection: close\r\n"
            + f"content-length: {len(content)}\r\n\r\n".encode()
            + content
        )
        self.transport.close()
