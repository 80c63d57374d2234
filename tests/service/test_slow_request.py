"""Requests that never arrive, against a real server."""

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from service.slow_request import timed
from tests.service.test_app_process import Serve, serve
from tests.service.test_request_head import answer
from tests.service.test_security_headers import running

__all__ = ["serve"]

LIMIT_S = 0.5
HEAD = b"POST / HTTP/1.1\r\nhost: x\r\n"
LONG = HEAD + b"content-length: 1000\r\n\r\n"
Connect = Callable[[], socket.socket]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers /early before the body is there, and /slow long after."""
    path = scope["path"]
    while path != "/early" and (await receive()).get("more_body"):
        pass
    if path == "/slow":
        await asyncio.sleep(2 * LIMIT_S)
    headers = [(b"content-length", b"4")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"done"})


@pytest.fixture(scope="module")
def connect() -> Iterator[Connect]:
    config = uvicorn.Config(app, port=0, lifespan="off", log_config=None, http=timed(LIMIT_S))
    config.timeout_keep_alive = 30
    with running(uvicorn.Server(config)) as port:
        yield lambda: socket.create_connection(("127.0.0.1", port), timeout=30)


def drip(connection: socket.socket, first: bytes, byte: bytes = b"x") -> float:
    """Sends `first`, then a byte now and then, until the server has had enough: after so many
    seconds."""
    began = time.monotonic()
    connection.sendall(first)
    connection.setblocking(False)
    while time.monotonic() < began + 20:
        try:
            connection.send(byte)
            if connection.recv(1 << 16, socket.MSG_PEEK) == b"":
                break
        except BlockingIOError:
            pass
        except OSError:
            break
        time.sleep(LIMIT_S / 20)
    connection.setblocking(True)
    return time.monotonic() - began


@pytest.mark.parametrize("sent", [b"GET /", HEAD + b"name: ", LONG], ids=["line", "header", "body"])
def test_a_request_that_does_not_arrive(connect: Connect, sent: bytes) -> None:
    with connect() as connection:
        began = time.monotonic()
        connection.sendall(sent)
        head, _, body = answer(connection).partition(b"\r\n\r\n")
        assert LIMIT_S * 0.9 < time.monotonic() - began < 20
    assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"content-type: application/problem+json" in head
    assert json.loads(body)["status"] == 408


@pytest.mark.parametrize("sent", [b"GET /", HEAD + b"name: ", LONG], ids=["line", "header", "body"])
def test_a_byte_now_and_then_wins_no_time(connect: Connect, sent: bytes) -> None:
    with connect() as connection:
        assert LIMIT_S * 0.9 < drip(connection, sent) < 15


def test_a_connection_without_a_byte_is_closed(connect: Connect) -> None:
    with connect() as connection:
        assert answer(connection) == b""


def test_nor_do_line_ends_between_requests(connect: Connect) -> None:
    with connect() as connection:
        connection.sendall(HEAD + b"content-length: 0\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")
        assert drip(connection, b"\r\n", b"\n") < 15


def test_nor_a_body_that_was_answered_before_it_came(connect: Connect) -> None:
    with connect() as connection:
        connection.sendall(LONG.replace(b"/ ", b"/early ", 1))
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")
        assert drip(connection, b"x") < 15


def test_an_answer_may_take_its_time(connect: Connect) -> None:
    """And so may one request after the other, on one connection, and the one behind in line."""
    slow = b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
    with connect() as connection:
        for _ in range(2):
            connection.sendall(slow)
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")
            time.sleep(LIMIT_S / 2)
        connection.sendall(slow + slow[:10])
        time.sleep(1.5 * LIMIT_S)  # the answer takes longer
        connection.sendall(slow[10:-2] + b"connection: close\r\n\r\n")
        got = answer(connection)
    assert got.count(b"done") == 2
    assert got.endswith(b"done")


def test_the_service_gives_up_what_does_not_arrive(serve: Serve) -> None:
    process = serve("--engine", "fake", request_timeout_s=1)
    with process.client() as client:
        address = (client.base_url.host, client.base_url.port or 0)
        with socket.create_connection(address, timeout=30) as connection:
            connection.sendall(LONG.replace(b"/ ", b"/v1/recommendations ", 1) + b"{")
            assert answer(connection).startswith(b"HTTP/1.1 408 ")
        counted = 'status="499"'
        end = time.monotonic() + 20
        while not any(counted in line for line in client.get("/metrics").text.splitlines()):
            assert time.monotonic() < end
            time.sleep(0.05)
    said = [json.loads(line) for line in process.lines]
    [warning] = [line for line in said if line["event"] == "request_too_slow"]
    assert warning["limit_s"] == 1
