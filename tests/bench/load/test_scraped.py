"""Differences of real histograms, as prometheus-client exposes them over HTTP."""

import threading
from collections.abc import Iterator
from wsgiref.simple_server import WSGIServer

import pytest
from prometheus_client import CollectorRegistry, Histogram, start_http_server

from bench.load.scraped import NotTold, compared, look


class Exposed:
    """A process with the stages' histogram, and nothing else."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.stages = Histogram(
            "sidrec_stage_seconds",
            "",
            ("stage",),
            buckets=(0.01, 0.02, 0.04),
            registry=self.registry,
        )
        self.server, self.thread = start_http_server(0, "127.0.0.1", registry=self.registry)
        assert isinstance(self.server, WSGIServer)
        assert isinstance(self.thread, threading.Thread)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def exposed() -> Iterator[Exposed]:
    one = Exposed()
    yield one
    one.close()


def test_what_was_before_does_not_count(exposed: Exposed) -> None:
    search = exposed.stages.labels("search")
    search.observe(30)
    before = look([exposed.url], None)
    for _ in range(100):
        search.observe(0.015)
    found = compared(before, look([exposed.url], None))
    [row] = found["stages"]
    assert (row["stage"], row["count"]) == ("search", 100)
    assert row["mean_ms"] == pytest.approx(15)
    assert row["p50_ms"] == pytest.approx(15)  # the middle of its bucket
    assert row["p99_ms"] == pytest.approx(19.9)
    assert found["batch_size"] is None


def test_replicas_are_added_up(exposed: Exposed) -> None:
    other = Exposed()
    try:
        urls = [exposed.url, other.url]
        before = look(urls, None)
        exposed.stages.labels("items").observe(0.005)
        other.stages.labels("items").observe(0.005)
        [row] = compared(before, look(urls, None))["stages"]
        assert row["count"] == 2
    finally:
        other.close()


def test_counts_of_another_process_are_noticed(exposed: Exposed) -> None:
    exposed.stages.labels("search").observe(1)
    before = look([exposed.url], None)
    other = Exposed()
    try:
        other.stages.labels("search")
        with pytest.raises(NotTold, match="went down"):
            compared(before, look([other.url], None))
    finally:
        other.close()


def test_nobody_is_there() -> None:
    with pytest.raises(NotTold, match="9/metrics"):
        look(["http://127.0.0.1:9"], None)
