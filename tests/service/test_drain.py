"""How the service ends: what is in flight is finished, nothing new begins, and it says 0."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import psutil

from tests.service.test_api import HISTORY
from tests.service.test_app_process import Serve, in_flight, serve

__all__ = ["serve"]

ASK = {"history": HISTORY}


def test_nothing_new_begins_and_the_rest_is_finished(serve: Serve) -> None:
    process = serve("--engine", "fake", engine_options='{"delay_ms": 800}')
    with process.client() as client, ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(client.post, "/v1/recommendations", json=ASK) for _ in range(4)]
        while in_flight(client) < 4:
            time.sleep(0.01)
        process.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + 10
        while True:  # until the port is closed; before that, who connects is answered
            try:
                httpx.get(client.base_url.join("/livez"), timeout=5)
            except httpx.TransportError:
                break
            assert time.monotonic() < end
            time.sleep(0.02)
        assert process.process.poll() is None
        answers = [task.result() for task in asked]
        assert {answer.json()["source"] for answer in answers} == {"model"}
        assert {answer.headers["connection"] for answer in answers} == {"close"}
    assert process.wait() == (0, "")


def test_what_takes_too_long_is_given_up(serve: Serve) -> None:
    options = '{"delay_ms": 2500}'
    process = serve("--engine", "fake", engine_options=options, shutdown_timeout_s=1)
    with process.client() as client, ThreadPoolExecutor(2) as pool:
        # One runs in the engine, one waits for it: neither is done within a second.
        asked = [pool.submit(client.post, "/v1/recommendations", json=ASK) for _ in range(2)]
        while in_flight(client) < 2:
            time.sleep(0.01)
        process.process.send_signal(signal.SIGTERM)
        for task in asked:
            with suppress(httpx.TransportError):
                assert task.result().status_code >= 500
    code, stderr = process.wait()
    assert (code, stderr) == (0, "")


def test_a_second_signal_does_not_wait(serve: Serve) -> None:
    """Nor does it leave anything behind: the private Redis ends too, with what it had."""
    process = serve("--engine", "fake", engine_options='{"delay_ms": 3000}')
    with process.client() as client, ThreadPoolExecutor(4) as pool:
        redis = psutil.Process(process.process.pid).children()
        assert [one.name() for one in redis] == ["redis-server"]
        # They would take 12 seconds, one after the other, with 30 to end in.
        asked = [pool.submit(client.post, "/v1/recommendations", json=ASK) for _ in range(4)]
        while in_flight(client) < 4:
            time.sleep(0.01)
        for _ in range(2):
            process.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
        began = time.monotonic()
        for task in asked:
            with suppress(httpx.TransportError):
                assert task.result().status_code >= 500
        assert process.wait() == (0, "")
        assert time.monotonic() - began < 8
    assert psutil.wait_procs(redis, timeout=10)[1] == []
