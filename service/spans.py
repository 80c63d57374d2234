"""Parts of a request, for its trace: a recommendation, a stage, a use of Redis. No HTTP.

Where the request is not traced, all of this looks at one variable and does nothing.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Tracer

_NOTHING: AbstractContextManager[None] = nullcontext()

_tracer: ContextVar[Tracer | None] = ContextVar("tracer", default=None)


def span(
    name: str,
    attributes: Mapping[str, str] | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
) -> AbstractContextManager[Any]:
    """Around a part of a request; nothing at all where the request is not traced."""
    tracer = _tracer.get()
    if tracer is None:
        return _NOTHING
    return tracer.start_as_current_span(name, attributes=attributes, kind=kind)


def redis_span() -> AbstractContextManager[Any]:
    """Around what is asked of Redis for a request; what runs in the background is in no trace."""
    return span("redis", {"db.system.name": "redis"}, SpanKind.CLIENT)


def annotate(**attributes: str | int | None) -> None:
    """Says more about the part of a request that is under way; None says nothing."""
    if _tracer.get() is not None:
        known = {f"sidrec.{name}": value for name, value in attributes.items() if value is not None}
        trace.get_current_span().set_attributes(known)


@contextmanager
def traced_by(tracer: Tracer) -> Iterator[None]:
    """Within, parts of the current span are traced."""
    token = _tracer.set(tracer)
    try:
        yield
    finally:
        _tracer.reset(token)
