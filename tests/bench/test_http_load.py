"""Latencies of an open loop count from when a request was due, against a server that is real, and
slow on purpose."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from bench.http_load import closed_loop, even, open_loop, poisson

SERVICE_S = 0.02
BODIES = [b'{"user_id": "1"}', b'{"user_id": "2"}']


class SlowServer(ThreadingHTTPServer):
    """Works on one request at a time, `SERVICE_S` each; every `refuses`th gets a 503."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.working = threading.Lock()
        self.bodies: list[bytes] = []
        self.refuses = 0
        self.answer = b'{"source":"model"}'

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SlowServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.working:
            self.server.bodies.append(body)
            number = len(self.server.bodies)
            time.sleep(SERVICE_S)
        refused = self.server.refuses and number % self.server.refuses == 0
        self.send_response(503 if refused else 200)
        self.send_header("Content-Length", str(len(self.server.answer)))
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[SlowServer]:
    with SlowServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("evenly", [True, False])
def test_above_capacity_latencies_include_the_queue(server: SlowServer, evenly: bool) -> None:
    """At four times the capacity of 50 a second, whoever comes at the end of a second waits three;
    the median half of that. A closed loop with one caller sees nothing of it."""
    alone = closed_loop(server.url, BODIES, 1, 0.5)
    over = open_loop(server.url, BODIES, 4 / SERVICE_S, 0.5, evenly=evenly)
    assert over.outcomes == {"200": 100}
    least = 100 * SERVICE_S - 0.5  # of the latest one: all of the work, less when it came
    assert over.percentile(99) > 0.8 * least
    assert 0.25 * least < over.percentile(50) < 0.8 * over.percentile(99)
    assert alone.percentile(50) < 0.3 * over.percentile(50)
    assert over.per_second == pytest.approx(100 / over.wall_s)
    assert over.wall_s > 100 * SERVICE_S


def test_below_capacity_there_is_no_queue(server: SlowServer) -> None:
    answered = open_loop(server.url, BODIES, 0.2 / SERVICE_S, 1, evenly=True)
    assert answered.outcomes == {"200": 10}
    assert SERVICE_S < answered.percentile(50) < 15 * SERVICE_S
    assert 0 < answered.cpu_s < answered.wall_s
    assert server.bodies == BODIES * 5


def test_what_is_not_a_models_answer_is_counted(server: SlowServer) -> None:
    server.refuses = 2
    refused = open_loop(server.url, BODIES, 100, 0.1)
    assert (refused.outcomes, refused.failed) == ({"200": 5, "503": 5}, 5)
    server.refuses = 0
    for source in (b"popular", b"popular_in_scene"):
        server.answer = b'{"source":"%s","items":[{"source":"popular"}]}' % source
        popular = open_loop(server.url, BODIES, 100, 0.1)
        assert (popular.outcomes, popular.failed) == ({"popular": 10}, 10)
    server.answer = b'{"source":"model","items":[{"source":"model"},{"source":"popular"}]}'
    assert open_loop(server.url, BODIES, 100, 0.1).outcomes == {"200": 10}


def test_nobody_is_there() -> None:
    found = open_loop("http://127.0.0.1:9", BODIES, 100, 0.05)
    assert (found.outcomes, found.failed) == ({"unreachable": 5}, 5)


def test_random_arrivals_are_as_many_as_even_ones_and_differ() -> None:
    phases = [(10.0, 2.0), (40.0, 1.0)]
    due = [poisson(phases, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert due[0] == due[1] != due[2]
    for moments in due:
        assert moments == sorted(moments)
        assert [moment < 2 for moment in moments].count(True) == 20
        assert len(moments) == len(even(phases)) == 60
