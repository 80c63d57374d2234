"""`sidrec serve` as a process: it starts, answers, drains, survives kill -9, and fails plainly."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_store.bundle import Bundle
from service.redis_server import EmbeddedRedis
from tests.faults.processes import kill_whole
from tests.service.test_api import HISTORY, event

SIDREC = Path(sys.executable).with_name("sidrec")
START_S = 120
Serve = Callable[..., "Process"]


class Process:
    """A running `sidrec serve` on a port of its own choice."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [SIDREC, "serve", "--port", "0", *arguments],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if '"listening"' in line:
                self._listening.set()

    def client(self) -> httpx.Client:
        assert self._listening.wait(START_S), self.end(signal.SIGKILL)
        [line] = [json.loads(line) for line in self.lines if '"listening"' in line]
        assert line["docs"] == line["url"] + "/docs"
        return httpx.Client(base_url=line["url"], timeout=30)

    def end(self, number: int) -> tuple[int, str]:
        """Sends a signal; exit code and what stands on standard error."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        code = self.process.wait(START_S)
        self._reader.join()
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        with self.process.stdout, self.process.stderr:
            return code, self.process.stderr.read()


@pytest.fixture
def serve(bundle: Bundle, tmp_path: Path) -> Iterator[Serve]:
    started: list[Process] = []

    def start(*arguments: str, **settings: Any) -> Process:
        environment = {f"SIDREC_{name.upper()}": str(value) for name, value in settings.items()}
        defaults = {"SIDREC_STATE_DIR": str(tmp_path / "state"), "SIDREC_BUNDLE": str(bundle.path)}
        started.append(Process(list(arguments), defaults | environment))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            kill_whole(one.process)
            one.wait()


def test_it_answers_with_the_real_engine_and_a_private_redis(serve: Serve) -> None:
    process = serve()
    with process.client() as client:
        assert client.get("/readyz").json()["status"] == "ready"
        events = [event(n, user_id="ann-in-clear") for n in range(3)]
        assert client.post("/v1/events", json=events).json()["accepted"] == 3
        answer = client.post("/v1/recommendations", json={"user_id": "ann-in-clear"}).json()
        assert (answer["source"], answer["history_used"]) == ("model", 3)
        assert client.get("/v1/users/ann-in-clear/history").status_code == 200
        assert client.get("/v1/users/ann-in-clear").status_code == 405
        large = b'{"history": ["' + b"x" * (2 << 20) + b'"]}'
        for content in (large, iter([large])):  # with a Content-Length, and in chunks
            refused = client.post(
                "/v1/recommendations",
                content=content,
                headers={"Content-Type": "application/json"},
            )
            assert refused.status_code == 413
            assert refused.headers["content-type"] == "application/problem+json"
        assert "server" not in client.get("/livez").headers
    code, stderr = process.end(signal.SIGTERM)
    assert (code, stderr) == (0, "")
    assert "ann-in-clear" not in "".join(process.lines)
    lines = [json.loads(line) for line in process.lines]
    requests = [line for line in lines if line["event"] == "request"]
    assert [line["route"] for line in requests] == [
        "/v1/events",
        "/v1/recommendations",
        "/v1/users/{user_id}/history",
        "/v1/users/{user_id}",
        "unmatched",  # refused before a route was looked for
        "/v1/recommendations",
    ]
    assert requests[1]["request_id"] == answer["request_id"]
    assert requests[1]["source"] == "model"
    pseudonyms = [line.get("user") for line in requests]
    assert re.fullmatch("[0-9a-f]{16}", pseudonyms[1])
    assert pseudonyms[1:3] == [pseudonyms[1]] * 2
    assert pseudonyms[0] is pseudonyms[3] is None


def in_flight(client: httpx.Client) -> int:
    [line] = [
        line
        for line in client.get("/metrics").text.splitlines()
        if line.startswith("sidrec_recommendations_in_flight ")
    ]
    return int(float(line.split()[1]))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_in_flight_are_answered_before_the_end(
    serve: Serve, tmp_path: Path, number: int
) -> None:
    with EmbeddedRedis(tmp_path / "own") as redis:
        assert redis.pid is not None
        process = serve("--engine", "fake", redis_url=redis.url, redis_timeout_ms=30_000)
        with process.client() as client, ThreadPoolExecutor(8) as pool:
            client.post("/v1/events", json=[event(n) for n in range(3)])
            os.kill(redis.pid, signal.SIGSTOP)  # every history now takes its time
            try:
                asked = [
                    pool.submit(client.post, "/v1/recommendations", json={"user_id": "ann"})
                    for _ in range(8)
                ]
                while in_flight(client) < 8:
                    time.sleep(0.02)
                process.process.send_signal(number)
                time.sleep(0.3)
                assert process.process.poll() is None
            finally:
                os.kill(redis.pid, signal.SIGCONT)
            answers = [task.result() for task in asked]
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.json()["source"] for answer in answers} == {"model"}
        assert process.wait() == (0, "")


def test_no_acknowledged_event_is_lost_by_kill_9(serve: Serve) -> None:
    process = serve("--engine", "fake")
    acknowledged: list[str] = []
    with process.client() as client:
        stop = time.monotonic() + 1
        number = 0
        while time.monotonic() < stop and number < 200:
            number += 1
            response = client.post("/v1/events", json=[event(number)])
            assert response.json() == {"accepted": 1, "duplicates": 0}
            acknowledged.append(f"e{number}")
    assert process.end(signal.SIGKILL)[0] == -signal.SIGKILL
    again = serve("--engine", "fake", event_loop="asyncio")
    with again.client() as client:
        kept = client.get("/v1/users/ann/history").json()["events"]
        assert [found["event_id"] for found in kept] == acknowledged
    assert again.end(signal.SIGTERM) == (0, "")


def test_a_client_that_goes_takes_its_query_with_it(serve: Serve, tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "own") as redis:
        assert redis.pid is not None
        process = serve("--engine", "fake", redis_url=redis.url, redis_timeout_ms=60_000)
        with process.client() as client:
            os.kill(redis.pid, signal.SIGSTOP)
            try:
                with pytest.raises(httpx.ReadTimeout):
                    client.post("/v1/recommendations", json={"user_id": "ann"}, timeout=0.5)
                deadline = time.monotonic() + 10
                while in_flight(client) and time.monotonic() < deadline:
                    time.sleep(0.02)
                assert in_flight(client) == 0
            finally:
                os.kill(redis.pid, signal.SIGCONT)
            assert client.post("/v1/recommendations", json={"history": HISTORY}).is_success
        assert process.end(signal.SIGTERM) == (0, "")
    assert any('"status": 499' in line for line in process.lines)


def test_a_broken_bundle(serve: Serve, bundle: Bundle, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(bundle.path, broken)
    (broken / "model" / "config.json").unlink()
    (broken / "evil.pkl").write_bytes(b"\x80\x04.")
    code, stderr = serve("--bundle", str(broken)).wait()
    assert code == 1
    assert stderr.splitlines() == [
        "evil.pkl is a pickle, which is never loaded",
        "model/config.json is missing",
    ]


def test_no_bundle(serve: Serve, tmp_path: Path) -> None:
    code, stderr = serve("--bundle", str(tmp_path / "none")).wait()
    assert (code, stderr) == (1, f"{tmp_path / 'none'}: no such folder\n")


def test_an_unknown_engine_option(serve: Serve) -> None:
    code, stderr = serve("--engine", "fake", engine_options='{"warp": 9}').wait()
    assert code == 1
    assert "warp" in stderr
    assert "Traceback" not in stderr


def test_a_state_folder_in_use(serve: Serve) -> None:
    first = serve("--engine", "fake")
    with first.client():
        code, stderr = serve("--engine", "fake").wait()
        assert code == 1
        assert stderr.count("\n") == 1
        assert "in use by another sidrec process" in stderr
    assert first.end(signal.SIGTERM)[0] == 0


def test_a_port_in_use(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, stderr = serve("--engine", "fake", "--port", str(port)).wait()
    assert (code, stderr) == (1, f"cannot listen on 127.0.0.1, port {port}\n")


def test_a_bad_setting(serve: Serve) -> None:
    code, stderr = serve("--engine", "warp", beam_width="wide").wait()
    assert code == 2
    assert [line.split(": ")[0] for line in stderr.splitlines()] == [
        "--engine='warp'",
        "SIDREC_BEAM_WIDTH='wide'",
    ]


def test_the_settings_are_listed() -> None:
    done = subprocess.run([SIDREC, "settings"], capture_output=True, text=True, check=True)
    assert "| `SIDREC_PORT` | `8000` | Port to listen on; 0 takes a free one |" in done.stdout
