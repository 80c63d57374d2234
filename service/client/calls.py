"""One call: its attempts, the waiting between them, and what its answer means."""

import asyncio
import math
import random
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx2
from pydantic import ValidationError

from service.client.answers import ProblemDetails
from service.client.errors import (
    ClientError,
    Problem,
    TimedOut,
    TooOften,
    Unavailable,
    Unexpected,
    Unreachable,
    problem,
)

# Too late is too late: asking again would only be later.
_FINAL = "deadline-passed"
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call may take with all its attempts, and how many follow the first one."""

    timeout_s: float
    retries: int


class Calls:
    """Sends requests and reads answers.

    A call that changes nothing when it is repeated is repeated where the service could not be
    reached, was overloaded or unavailable, or the key had asked too often: after a random time that
    doubles, at least what `Retry-After` says, and never beyond the call's time.
    """

    def __init__(self, client: httpx2.AsyncClient, patience: Patience) -> None:
        self._client = client
        self._patience = patience

    async def send(self, method: str, path: str, body: Any = None, *, idempotent: bool) -> Any:
        """The document that the service answers with, None where it has none. Raises
        `ClientError`: what the last attempt met."""
        until = time.monotonic() + self._patience.timeout_s
        attempt = 0
        while True:
            try:
                return await self._attempt(method, path, body, until)
            except ClientError as error:
                wait = _wait(error, attempt)
                last = attempt >= self._patience.retries or time.monotonic() + wait >= until
                if last or not idempotent or not _passing(error):
                    raise
            await asyncio.sleep(wait)
            attempt += 1

    async def _attempt(self, method: str, path: str, body: Any, until: float) -> Any:
        try:
            # The client's own limits are of one read or write each, so a trickle would pass them.
            async with asyncio.timeout(until - time.monotonic()):
                answer = await self._client.request(method, path, json=body, timeout=None)
        except TimeoutError:
            limit = self._patience.timeout_s
            raise TimedOut(f"{method} {path}: no answer within {limit:g} s") from None
        except httpx2.RequestError as error:
            raise Unreachable(f"{method} {path}: {error or type(error).__name__}") from error
        return _document(answer)


def _passing(error: ClientError) -> bool:
    """Whether it may go by by itself. A caller's time that is over is not."""
    if isinstance(error, Unreachable):
        return not isinstance(error, TimedOut)
    if isinstance(error, Unexpected):
        return error.status in (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE)
    if isinstance(error, Unavailable | TooOften):
        return error.details.kind != _FINAL
    return False


def _wait(error: ClientError, attempt: int) -> float:
    """Seconds until the next attempt: full jitter, so that callers who failed together do not come
    back together."""
    longest = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**attempt)
    asked = error.retry_after or 0.0 if isinstance(error, Problem) else 0.0
    return asked + random.uniform(0, longest)


def _document(answer: httpx2.Response) -> Any:
    if answer.status_code == HTTPStatus.NO_CONTENT:
        return None
    try:
        content = answer.json()
        if answer.is_success:
            return content
        details = ProblemDetails.model_validate(content)
    except (ValueError, ValidationError):
        said = f"{answer.request.method} {answer.request.url}: {answer.status_code}"
        raise Unexpected(f"{said} {answer.reason_phrase}", answer.status_code) from None
    raise problem(details, _seconds(answer.headers.get("Retry-After")))


def _seconds(retry_after: str | None) -> float | None:
    """The service says seconds; a proxy may say a date, which is passed over."""
    try:
        seconds = float(retry_after or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
