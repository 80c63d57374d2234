"""One connection to a service, to prepare it and to ask what it says of itself."""

import http.client
import json
import time
from collections.abc import Iterable
from urllib.parse import urlsplit

_PATIENCE_S = 120.0
_TRIES = 10
_PAUSE_S = 1.0


class NotServing(Exception):
    """The service did not start, cannot be reached, or answered with an error; says which."""


class Connection:
    """One connection that is kept, with as little of a client around it as Python has.

    key: sent as bearer token, where the service wants one
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        parts = urlsplit(url)
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        self._connection = kind(parts.netloc, timeout=_PATIENCE_S)
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Content-Type": "application/json", **authorization(key)}

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        return self.ask("POST", path, body)

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """The same with another method."""
        self._connection.request(method, self._prefix + path, body, self._headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def authorization(key: str | None) -> dict[str, str]:
    """The header that carries a key."""
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def store_events(url: str, bodies: Iterable[bytes], key: str | None = None) -> None:
    """Hands events to the service, request by request, again where it is busy: nothing is stored
    twice. Raises `NotServing` where it refuses."""
    with Connection(url, key) as connection:
        for body in bodies:
            for left in reversed(range(_TRIES)):
                status, answer = connection.post("/v1/events", body)
                if status == 200:
                    break
                if status != 503 or not left:
                    raise NotServing(f"events were answered with {status}: {said(answer)}")
                time.sleep(_PAUSE_S)


def said(answer: bytes) -> str:
    """What a problem says, or the beginning of whatever was answered in its place."""
    try:
        problem = json.loads(answer)
        return f"{problem['title']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return repr(answer[:200])
