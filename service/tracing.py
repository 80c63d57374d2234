"""Traces for OpenTelemetry, where somebody collects them. A request's own span is FastAPI's, which
also reads the caller's `traceparent`; `service.spans` makes those inside it.

Spans name routes, never paths: a path can hold a user id.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from threading import Thread
from typing import TYPE_CHECKING

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Tracer

from service.errors import SidrecError
from service.spans import traced_by

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

# What the OpenTelemetry SDK itself calls them.
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
QUIET = {"/livez", "/readyz", "/metrics"}
"""Asked every few seconds by machines; their spans and log lines would bury the others."""

_FLUSH_S = 2.0


class TracingUnavailable(SidrecError):
    """Traces are wanted, and what sends them is not installed."""


class Tracing:
    """Sends the spans of one application to a collector, or records none.

    `endpoint` is where OTLP over HTTP is spoken, without `/v1/traces`; None leaves it to the
    variables of OpenTelemetry, and without those there are no traces. Raises TracingUnavailable.
    """

    def __init__(self, endpoint: str | None) -> None:
        self._provider: TracerProvider | None = None
        self._tracer: Tracer | None = None
        if endpoint is None and not any(map(os.environ.get, _ENDPOINTS)):
            return
        self._endpoint = None if endpoint is None else endpoint.rstrip("/") + "/v1/traces"
        self._provider = _provider()
        self._tracer = self._provider.get_tracer("sidrec", version("sidrec"))

    @property
    def of_fastapi(self) -> TelemetryConfig:
        """What FastAPI is to trace: requests, not how it works inside."""
        return TelemetryConfig(
            tracing=self._provider is not None,
            tracer_provider=self._provider,
            metrics=False,
            logs=False,
            operation_spans=False,
            auto_configure=False,
            exclude=lambda scope: scope.get("path") in QUIET,
        )

    @asynccontextmanager
    async def exported(self) -> AsyncIterator[None]:
        """Sends spans until left, and then those that are left, for two seconds at most: a
        collector that is away does not keep a process from ending."""
        if self._provider is None:
            yield
            return
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        processor = BatchSpanProcessor(exporter(self._endpoint))
        self._provider.add_span_processor(processor)
        try:
            yield
        finally:
            # Its own timeout is half a minute and cannot be set; a daemon holds nobody up.
            flush = Thread(target=processor.shutdown, daemon=True)
            flush.start()
            await asyncio.to_thread(flush.join, _FLUSH_S)

    @contextmanager
    def request(self) -> Iterator[str | None]:
        """Around a request; the id of its trace, None where it is not traced."""
        if self._tracer is None or not (current := trace.get_current_span()).is_recording():
            yield None
            return
        with traced_by(self._tracer):
            yield trace.format_trace_id(current.get_span_context().trace_id)


def exporter(endpoint: str | None) -> "SpanExporter":
    """What sends spans to a collector."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint)


def _provider() -> "TracerProvider":
    try:
        import opentelemetry.exporter.otlp.proto.http  # noqa: F401
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
    except ModuleNotFoundError as error:
        raise TracingUnavailable(f"traces need {error.name}: pip install 'sidrec[otel]'") from error

    class Pathless(SpanProcessor):
        """Hides what FastAPI says of a request before its route is known."""

        def on_start(self, span: Span, parent_context: Context | None = None) -> None:
            for name in ("url.path", "url.query"):
                if name in (span.attributes or {}):
                    span.set_attribute(name, "REDACTED")

    name = os.environ.get("OTEL_SERVICE_NAME", "sidrec")
    provider = TracerProvider(
        resource=Resource.create({SERVICE_NAME: name}), shutdown_on_exit=False
    )
    provider.add_span_processor(Pathless())
    return provider
