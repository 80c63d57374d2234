"""Spans of requests: what is in a trace, to whom it belongs, and what costs nothing."""

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from starlette.testclient import TestClient

from model_store.bundle import Bundle
from service import tracing
from service.spans import redis_span, span
from service.tracing import Tracing, TracingUnavailable
from tests.service.conftest import MakeClient
from tests.service.test_api import HISTORY, event, recommend
from tests.service.test_app_process import Process

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Where spans go instead of to a collector."""
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(tracing, "exporter", lambda endpoint: exporter)
    return exporter


@pytest.fixture
def traced(make_client: MakeClient, exported: InMemorySpanExporter) -> TestClient:
    return make_client(otlp_endpoint="http://127.0.0.1:9", cache_ttl_ms=0)


def spans(client: TestClient, exported: InMemorySpanExporter) -> list[ReadableSpan]:
    """All that there are, in the order in which they began. The client is of no use any more."""
    client.__exit__()
    return sorted(exported.get_finished_spans(), key=lambda one: one.start_time or 0)


def children(all_spans: list[ReadableSpan], parent: ReadableSpan) -> list[str]:
    return [
        one.name
        for one in all_spans
        if one.parent is not None and one.parent.span_id == parent.context.span_id
    ]


def named(all_spans: list[ReadableSpan], name: str) -> ReadableSpan:
    [found] = [one for one in all_spans if one.name == name]
    return found


def test_a_trace_has_the_request_its_stages_and_redis(
    traced: TestClient, exported: InMemorySpanExporter
) -> None:
    traced.post("/v1/events", json=[event(n) for n in range(3)])
    traced.post(
        "/v1/recommendations",
        json={"user_id": "ann"},
        headers={"traceparent": f"00-{TRACE}-{CALLER}-01"},
    )
    found = [one for one in spans(traced, exported) if one.context.trace_id == int(TRACE, 16)]
    request = named(found, "POST /v1/recommendations")
    assert request.kind is SpanKind.SERVER
    assert request.parent is not None
    assert request.parent.span_id == int(CALLER, 16)
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["sidrec.version"] == "tiny/1"
    assert request.attributes["sidrec.source"] == "model"
    assert children(found, request) == ["recommendation"]
    stages = ["history", "eligibility", "prompt", "search", "items"]
    assert children(found, named(found, "recommendation")) == stages
    assert children(found, named(found, "history")) == ["redis"]
    assert named(found, "redis").kind is SpanKind.CLIENT
    assert len(found) == 8


def test_what_runs_in_the_background_is_in_no_trace(
    traced: TestClient, exported: InMemorySpanExporter
) -> None:
    traced.get("/readyz")
    traced.get("/metrics")
    traced.post("/v1/events", json=[event(1)])
    time.sleep(0.5)  # two looks for changes of the catalogue
    roots = [one.name for one in spans(traced, exported) if one.parent is None]
    assert roots == ["POST /v1/events"]


def test_each_of_a_batch_has_its_own_stages(
    traced: TestClient, exported: InMemorySpanExporter
) -> None:
    wanted = [{"history": HISTORY}, {"user_id": "nobody"}, {"k": 0}]
    traced.post("/v1/recommendations/batch", json={"requests": wanted})
    found = spans(traced, exported)
    request = named(found, "POST /v1/recommendations/batch")
    assert children(found, request) == ["recommendation", "recommendation"]
    assert request.attributes is not None
    assert request.attributes["sidrec.answers"] == 2
    assert request.attributes["sidrec.refused"] == 1
    sources = [one.attributes for one in found if one.name == "recommendation"]
    assert {str(each["sidrec.source"]) for each in sources if each} == {"model", "popular"}


def test_a_failure_shows_where_it_was(traced: TestClient, exported: InMemorySpanExporter) -> None:
    traced.app_state["service"].holder.current.engine.fails = True
    recommend(traced, history=HISTORY)
    found = spans(traced, exported)
    assert named(found, "search").status.status_code is StatusCode.ERROR
    assert named(found, "items").status.status_code is StatusCode.UNSET
    request = named(found, "POST /v1/recommendations")
    assert request.status.status_code is StatusCode.UNSET  # it was answered
    assert request.attributes is not None
    assert request.attributes["sidrec.reason"] == "engine_error"


def test_no_span_has_a_user_id(traced: TestClient, exported: InMemorySpanExporter) -> None:
    recommend(traced, user_id="ann-in-clear")
    traced.get("/v1/users/ann-in-clear/history?who=ann-in-clear")
    traced.get("/nowhere/ann-in-clear")
    traced.put("/v1/users/ann-in-clear/profile", json={"profile": {"ann-in-clear": "x"}})
    found = spans(traced, exported)
    assert "GET /v1/users/{user_id}/history" in [one.name for one in found]
    assert "ann-in-clear" not in "".join(one.to_json() for one in found)


def test_a_caller_that_does_not_sample_is_not_traced(
    traced: TestClient, exported: InMemorySpanExporter
) -> None:
    traced.post(
        "/v1/recommendations",
        json={"history": HISTORY},
        headers={"traceparent": f"00-{TRACE}-{CALLER}-00"},
    )
    assert spans(traced, exported) == []


def test_off_is_off(client: TestClient) -> None:
    """Without a collector no provider is made, and parts of a request are one shared nothing."""
    assert Tracing(None).of_fastapi["tracing"] is False
    assert span("a") is span("b") is redis_span()
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
    assert client.post("/v1/recommendations", json={}, headers=headers).status_code == 200


def test_without_the_extra_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(TracingUnavailable, match=r"pip install 'sidrec\[otel\]'"):
        Tracing("http://127.0.0.1:9")


class Collector(HTTPServer):
    """Speaks OTLP over HTTP, as a collector does, and keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.told: list[ExportTraceServiceRequest] = []


class _Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.told.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_collector_is_sent_what_the_log_names(
    bundle: Bundle, tmp_path: Path, collector: Collector
) -> None:
    process = Process(
        ["--engine", "fake"],
        {
            "SIDREC_BUNDLE": str(bundle.path),
            "SIDREC_STATE_DIR": str(tmp_path),
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
            "OTEL_SERVICE_NAME": "shop",
        },
    )
    with process.client() as client:
        assert client.post("/v1/recommendations", json={"user_id": "ann"}).status_code == 200
    assert process.end(signal.SIGTERM) == (0, "")
    groups = [group for told in collector.told for group in told.resource_spans]
    names = {a.key: a.value.string_value for group in groups for a in group.resource.attributes}
    assert names["service.name"] == "shop"
    sent = [one for group in groups for scope in group.scope_spans for one in scope.spans]
    assert {"POST /v1/recommendations", "history", "redis", "items"} <= {one.name for one in sent}
    [line] = [json.loads(line) for line in process.lines if '"event": "request"' in line]
    assert {one.trace_id.hex() for one in sent} == {line["trace_id"]}


def test_a_collector_that_is_away_keeps_nobody(bundle: Bundle, tmp_path: Path) -> None:
    process = Process(
        ["--engine", "fake"],
        {
            "SIDREC_BUNDLE": str(bundle.path),
            "SIDREC_STATE_DIR": str(tmp_path),
            "SIDREC_OTLP_ENDPOINT": "http://127.0.0.1:9",
        },
    )
    with process.client() as client:
        assert client.post("/v1/recommendations", json={}).status_code == 200
    began = time.monotonic()
    code, _ = process.end(signal.SIGTERM)
    assert code == 0
    assert time.monotonic() - began < 20  # the exporter alone would try for half a minute
