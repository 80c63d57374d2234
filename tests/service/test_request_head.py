"""Heads without an end, against a real server."""

import json
import socket
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from service.request_head import MAX_HEAD_BYTES, BoundedHead
from tests.service.test_security_headers import running


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the number of headers, once the body is there; /busy stops the server first."""
    if scope["path"] == "/busy":
        time.sleep(1)  # noqa: ASYNC251 (that is the point)
    while (await receive()).get("more_body"):
        pass
    body = str(len(scope["headers"])).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    config = uvicorn.Config(app, port=0, lifespan="off", log_config=None, http=BoundedHead)
    with running(uvicorn.Server(config)) as port:
        yield "127.0.0.1", port


def answer(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    received = b""
    try:
        while part := connection.recv(1 << 16):
            received += part
    except ConnectionResetError:  # it closed before it had read all that we sent
        pass
    return received


@pytest.mark.parametrize("piece", [b"x" * 65_536, b"a: b\r\n" * 10_000], ids=["value", "headers"])
def test_a_head_without_end_is_refused(address: tuple[str, int], piece: bytes) -> None:
    sent = 0
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nlong: ")
        try:
            while sent < 100 << 20:
                connection.sendall(piece)
                sent += len(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert sent < 20 << 20  # what the buffers of both sides hold


def test_the_refusal_is_a_problem(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nlong: ")
        for _ in range(MAX_HEAD_BYTES // 1024 + 1):
            connection.sendall(b"x" * 1024)
        head, _, body = answer(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert b"content-type: application/problem+json" in head
    assert json.loads(body)["status"] == 431


def test_what_fits_is_answered_again_and_again(address: tuple[str, int]) -> None:
    """On one connection, so that heads are counted anew, with bodies larger than a head may be."""
    head = b"POST / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 5000
    request = head + b"content-length: 100000\r\n\r\n" + b"x" * 100_000
    last = head + b"connection: close\r\ncontent-length: 0\r\n\r\n"
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(request * 3 + last)
        got = answer(connection)
    assert got.count(b"HTTP/1.1 200 OK") == 4
    assert got.count(b"\r\n\r\n5002") == 4 or got.count(b"5002") >= 3


def test_a_head_may_come_behind_a_long_body(address: tuple[str, int]) -> None:
    """In one read, of which it is but the end."""
    busy = b"POST /busy HTTP/1.1\r\nhost: x\r\ncontent-length: 70000\r\n\r\n"
    head = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(busy)
        time.sleep(0.3)
        connection.sendall(b"x" * 70_000 + head[:20])
        time.sleep(1)
        connection.sendall(head[20:])
        got = answer(connection)
    assert got.count(b"HTTP/1.1 200 OK") == 2


def test_trailers_are_dropped(address: tuple[str, int]) -> None:
    request = (
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    )
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(request + b"1\r\nx\r\n0\r\na: b\r\nc: d\r\n\r\n")
        got = answer(connection)
    assert got.startswith(b"HTTP/1.1 200 OK")
    assert b"\r\n\r\n3" in got or b"3\r\n" in got
