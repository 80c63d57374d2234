"""Clients that behave badly, one by one or in numbers. Everybody else must not notice."""

import json
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from model_store.bundle import Bundle
from tests.faults.conftest import Report
from tests.faults.processes import Service, eventually
from tests.faults.traffic import Traffic

SLOWEST_S = 10
"""Of everybody else's answers; what is looked for is a service that stands still."""


def _request(path: str, body: dict[str, object]) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: sidrec\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


def _connected(service: Service, stack: ExitStack) -> socket.socket:
    host, port = service.url.removeprefix("http://").split(":")
    return stack.enter_context(socket.create_connection((host, int(port)), timeout=30))


@pytest.fixture
def many_files() -> Iterator[None]:
    """Open files for this process's ends of the connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip(f"this process may open {hard} files at most")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("redis", "many_files")
def test_slow_senders(service: Service, scale: float, report: Report) -> None:
    request = _request("/v1/recommendations", {"history": ["item-1"], "k": 5})
    with Traffic(service) as traffic, ExitStack() as stack:
        slow = [_connected(service, stack) for _ in range(200)]
        for byte in request:
            for one in slow:
                one.sendall(bytes([byte]))
            traffic.wait(0.005 * scale)
        answered = sum(one.recv(1 << 16).startswith(b"HTTP/1.1 200 ") for one in slow)
    assert answered == len(slow)
    _assert_well(traffic)
    report.saw(f"{answered} of {len(slow)} slow ones answered with 200; {traffic.account()}")


@pytest.mark.usefixtures("redis")
def test_clients_never_read(service: Service, scale: float, report: Report) -> None:
    request = _request("/v1/recommendations", {"history": ["item-1"], "k": 300})
    with Traffic(service) as traffic, ExitStack() as stack:
        traffic.wait(0.3 * scale)
        before_mb = most_mb = service.rss_mb
        for _ in range(20):
            # Fewer bytes than the head of a request may have, which is all that one read may bring.
            _connected(service, stack).sendall(request * 300)
        deadline = time.monotonic() + 1.5 * scale
        while time.monotonic() < deadline:
            traffic.wait(0.02)
            most_mb = max(most_mb, service.rss_mb)
        stack.close()
        traffic.wait(0.3 * scale)
    grown_mb = most_mb - before_mb
    eventually(lambda: service.metric("sidrec_recommendations_in_flight") == 0)
    assert grown_mb < 60
    _assert_well(traffic)
    report.saw(
        f"6000 requests sent, no answer read; memory {grown_mb:.0f} MB more at most;"
        f" {traffic.account()}"
    )


@pytest.mark.usefixtures("many_files")
def test_idle_connections(bundle: Bundle, tmp_path: Path, scale: float, report: Report) -> None:
    """A service of its own, started with few files to open, as shells and containers have them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    settings = {"bundle": bundle.path, "engine": "fake", "state_dir": tmp_path / "state"}
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    with Service(tmp_path / "log", settings) as service, ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        idle = [_connected(service, stack) for _ in range(2000)]
        with Traffic(service) as traffic:
            traffic.wait(0.5 * scale)
            traffic.stop()
            lost = traffic.lost()
            assert lost == 0
        open_files = len(list(Path(f"/proc/{service.process.pid}/fd").iterdir()))
        assert open_files > len(idle)
        assert "Traceback" not in service.said
    _assert_well(traffic)
    report.saw(f"{len(idle)} idle, {open_files} open files; {traffic.account()}, {lost} lost")


def _assert_well(traffic: Traffic) -> None:
    assert set(traffic.how("events")) == {"accepted"}
    assert "model" in traffic.how("recommendations")
    assert traffic.slowest_s("recommendations") < SLOWEST_S
