"""Who asks: the key of a request, whether it may do this, and whether it may do it now."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Send
from starlette.types import Scope as Asgi
from structlog.contextvars import bind_contextvars

from service.errors import Forbidden, SidrecError, TooOften, Unidentified
from service.keys.key import Key, Scope
from service.keys.keyring import Keyring
from service.keys.rates import Left, Rates
from service.metrics.http import HttpMetrics

_BEARER = "bearer "


class Guard:
    """Admits whoever has the right key; everybody where there is no `keyring`."""

    def __init__(self, keyring: Keyring | None, metrics: HttpMetrics) -> None:
        self._keyring = keyring
        self._metrics = metrics
        self._rates = Rates()

    async def admit(self, scope: Asgi, needs: Scope, send: Send) -> Send:
        """Lets a request pass, with its state naming who asks; how to answer it.

        Raises `Unidentified`, `Forbidden` and `TooOften`.
        """
        if self._keyring is None:
            return send
        try:
            key = _key(self._keyring, scope)
            scope["state"].update(principal=key.name, batch=key.batch)
            bind_contextvars(key=key.name)
            if needs not in key.scopes:
                raise Forbidden(f"the key {key.name} lacks the scope {needs}", needs)
            left = await self._rates.count(key)
        except (Unidentified, Forbidden, TooOften) as error:
            self._metrics.refused(_reason(error))
            raise
        return send if left is None else _saying(left, send)


def _key(keyring: Keyring, scope: Asgi) -> Key:
    given = Headers(scope=scope).get("authorization", "")
    if not given:
        raise Unidentified("send a key: Authorization: Bearer …", reason="missing")
    if not given[: len(_BEARER)].lower() == _BEARER:
        raise Unidentified("send the key as Authorization: Bearer …", reason="missing")
    return keyring.find(given[len(_BEARER) :].strip())


def _saying(left: Left, send: Send) -> Send:
    """Says in the answer what the key has left (draft-ietf-httpapi-ratelimit-headers)."""

    async def send_with_left(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["RateLimit-Policy"] = f'"key";q={left.limit};w={left.window_s}'
            headers["RateLimit"] = f'"key";r={left.remaining};t={left.reset_s}'
        await send(message)

    return send_with_left


def _reason(error: SidrecError) -> str:
    match error:
        case Unidentified(reason=reason):
            return reason
        case Forbidden():
            return "scope"
    return "rate"
