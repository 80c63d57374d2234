"""Errors as RFC 9457 problems. The one place where kinds of errors meet HTTP statuses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from structlog.contextvars import bind_contextvars

from service.errors import (
    CatalogueUnavailable,
    Conflict,
    DeadlinePassed,
    DoesNotFit,
    EngineDead,
    EngineError,
    ExperimentsUnavailable,
    Forbidden,
    HistoryUnavailable,
    InvalidInput,
    ModelConflict,
    ModelNotLoaded,
    ModelUnusable,
    NotFound,
    NotTrained,
    Overloaded,
    SidrecError,
    StoreUnavailable,
    TooOften,
    Unidentified,
)
from service.redis_server import RedisStartFailed
from service.tracing import TracingUnavailable

MEDIA_TYPE = "application/problem+json"
CLIENT_GONE = 499  # nginx's number; HTTP has none for a client that does not wait

# What RFC 6750 has a client told of the key that it lacks.
_REALM = 'Bearer realm="sidrec"'
_MAX_ERRORS = 20
_MAX_FIELD = 200


@dataclass(frozen=True, slots=True)
class Kind:
    """How a kind of error shows in HTTP."""

    name: str
    title: str
    status: int
    retry_after: int | None = None


KINDS: dict[type[SidrecError], Kind] = {
    InvalidInput: Kind("invalid-input", "The request cannot be used", 422),
    Conflict: Kind("conflict", "The request contradicts what stands", 409),
    NotFound: Kind("not-found", "There is no such thing", 404),
    NotTrained: Kind("not-trained", "The bundle in service was not trained for this", 409),
    ModelNotLoaded: Kind("model-not-loaded", "This version is not loaded", 404),
    ModelConflict: Kind("model-conflict", "This does not fit what is loaded and active", 409),
    ModelUnusable: Kind("model-unusable", "This version cannot be served", 422),
    DoesNotFit: Kind("does-not-fit", "There is not the memory for this version", 507),
    StoreUnavailable: Kind("store-unavailable", "The store of bundles is away", 503, 5),
    HistoryUnavailable: Kind("history-unavailable", "The history store is away", 503, 1),
    CatalogueUnavailable: Kind(
        "catalogue-unavailable", "The changes of the catalogue are away", 503, 1
    ),
    Unidentified: Kind("unidentified", "No key that is in force came with the request", 401),
    Forbidden: Kind("forbidden", "The key may not do this", 403),
    TooOften: Kind("too-often", "The key asks more often than it may", 429),
    ExperimentsUnavailable: Kind(
        "experiments-unavailable", "The store of experiments is away", 503, 1
    ),
    Overloaded: Kind("overloaded", "Too many requests are in flight", 503),
    EngineError: Kind("engine-error", "The engine could not answer", 503, 1),
    DeadlinePassed: Kind("deadline-passed", "There was no time for an answer", 504),
    EngineDead: Kind("engine-dead", "The engine has stopped", 503, 5),
    RedisStartFailed: Kind("redis-start-failed", "The private Redis did not start", 503),
    TracingUnavailable: Kind("tracing-unavailable", "Traces cannot be sent", 503),
}
INTERNAL = Kind("internal", "Something went wrong here", 500)


class FieldError(BaseModel):
    """What is wrong with one field; `field` is a dotted path, empty for the whole body."""

    field: str
    message: str


class Problem(BaseModel):
    """RFC 9457, with the id of the request and what is wrong with its fields."""

    type: str = Field(examples=["urn:sidrec:problem:invalid-input"])
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[FieldError] = []


def problem(
    request_id: str,
    kind: Kind,
    detail: str,
    *,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The response for a kind of error, which log and metrics are told of."""
    if kind.name:
        bind_contextvars(problem=kind.name)
    more = {} if kind.retry_after is None else {"Retry-After": str(kind.retry_after)}
    content = _problem(request_id, kind, detail, errors)
    return Response(
        content.model_dump_json(exclude_defaults=True),
        status_code=kind.status,
        headers={**more, **(headers or {})},
        media_type=MEDIA_TYPE,
    )


def problem_of(request_id: str, error: SidrecError | ValidationError) -> Problem:
    """What an error would be answered with, for one part of a larger answer."""
    if isinstance(error, ValidationError):
        found = [_field_error({**e, "loc": ("body", *e["loc"])}) for e in error.errors()]
        return _problem(request_id, KINDS[InvalidInput], _summary(found), found[:_MAX_ERRORS])
    return _problem(request_id, _kind(error), str(error), _errors(error))


def plain_kind(status: int) -> Kind:
    """The kind of an error that HTTP itself defines."""
    if status == CLIENT_GONE:
        return Kind("", "Client Closed Request", status)
    return Kind("", HTTPStatus(status).phrase, status)


def handle_problems(app: FastAPI) -> None:
    """Makes `app` answer with problems whatever a route or the framework raises on purpose."""
    app.add_exception_handler(SidrecError, _domain)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _validation)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _framework)  # type: ignore[arg-type]


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that can answer with these statuses."""
    # The document has it as a part of the answer to a batch.
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in statuses
    }


async def _domain(request: Request, error: SidrecError) -> Response:
    return problem(
        request.state.request_id,
        _kind(error),
        str(error),
        errors=_errors(error),
        headers=_headers(error),
    )


async def _validation(request: Request, error: RequestValidationError) -> Response:
    found = [_field_error(details) for details in error.errors()[:_MAX_ERRORS]]
    if isinstance(error.body, bytes):
        message = "must be JSON, sent with Content-Type: application/json"
        found = [FieldError(field="", message=message)]
    return _invalid(request, found)


async def _framework(request: Request, error: HTTPException) -> Response:
    if error.status_code == HTTPStatus.BAD_REQUEST:
        # What the framework says of bytes that its JSON parser chokes on: not UTF-8, too deep.
        return _invalid(request, [FieldError(field="", message=error.detail)])
    kind, headers = plain_kind(error.status_code), error.headers
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"Allow": ", ".join(_methods(request))}
    return problem(request.state.request_id, kind, error.detail, headers=headers)


def _methods(request: Request) -> list[str]:
    """What the path can be asked with; starlette names the methods of its first route only."""
    path = getattr(request.scope.get("route"), "path_format", "")
    return sorted(method.upper() for method in request.app.openapi()["paths"].get(path, {}))


def _invalid(request: Request, errors: Sequence[FieldError]) -> Response:
    return problem(request.state.request_id, KINDS[InvalidInput], _summary(errors), errors=errors)


def _problem(request_id: str, kind: Kind, detail: str, errors: Sequence[FieldError]) -> Problem:
    return Problem(
        type=f"urn:sidrec:problem:{kind.name}" if kind.name else "about:blank",
        title=kind.title,
        status=kind.status,
        detail=detail,
        request_id=request_id,
        errors=list(errors),
    )


def _kind(error: SidrecError) -> Kind:
    return next(KINDS[cls] for cls in type(error).__mro__ if cls in KINDS)


def _headers(error: SidrecError) -> dict[str, str]:
    match error:
        case Overloaded(retry_after=seconds) | TooOften(retry_after=seconds):
            return {"Retry-After": str(seconds)}
        case Unidentified(reason="missing"):
            return {"WWW-Authenticate": _REALM}
        case Unidentified():
            return {"WWW-Authenticate": f'{_REALM}, error="invalid_token"'}
        case Forbidden(scope=scope):
            return {"WWW-Authenticate": f'{_REALM}, error="insufficient_scope", scope="{scope}"'}
    return {}


def _errors(error: SidrecError) -> list[FieldError]:
    if isinstance(error, InvalidInput):
        return [FieldError(field=error.field, message=error.reason)]
    if isinstance(error, ModelUnusable):
        return [FieldError(field="", message=reason) for reason in error.problems[:_MAX_ERRORS]]
    return []


def _summary(errors: Sequence[FieldError]) -> str:
    return "; ".join(f"{e.field or 'body'}: {e.message}" for e in errors[:3])


def _field_error(details: Mapping[str, Any]) -> FieldError:
    if details["type"] == "json_invalid":
        message = f"not JSON: {details['ctx']['error']} at character {details['loc'][-1]}"
        return FieldError(field="", message=message)
    path = ".".join(str(part) for part in details["loc"][1:] if part != "[key]")
    return FieldError(field=path[:_MAX_FIELD], message=details["msg"].removeprefix("Value error, "))
