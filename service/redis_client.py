"""Clients of Redis that fit a latency budget: of one server, or of a cluster."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import redis.exceptions
from redis.asyncio import BlockingConnectionPool, Redis, SSLConnection
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from service.redis_cluster import Address, Cluster
from service.redis_command import ONE, Command, Copies

_CLUSTER = "+cluster"
_PORT = 6379


class Server(Redis):
    """One server, which may have replicas."""

    copies: Copies = ONE

    async def pipelined(self, commands: Sequence[Command], *, kept: bool) -> list[Any]:
        """The answers in the same order, exceptions in their place. `kept`: as `copies` say."""
        wait = kept and self.copies.replicas > 0
        async with self.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command.words, **command.options)
            if wait:
                pipeline.execute_command(*self.copies.command)
            answers = list(await pipeline.execute(raise_on_error=False))
        refusal = self.copies.refusal(answers.pop()) if wait else None
        return [a if refusal is None or isinstance(a, Exception) else refusal for a in answers]


RedisClient = Server | Cluster


def connect_any(
    url: str, *, timeout_ms: int = 250, connect_timeout_ms: int = 100, replicas: int = 0
) -> RedisClient:
    """A client of what `url` names: `redis+cluster://host:port,host:port` is a cluster, of which
    not all nodes need be named, and any other URL is one server.

    `replicas` must have what is written, before it is acknowledged, within four fifths of
    `timeout_ms`; the rest is as in `connect`. Raises ValueError for what is no URL of a Redis.
    """
    make = connect_cluster if is_cluster(url) else connect
    copies = Copies(replicas, max(1, timeout_ms * 4 // 5))
    return make(url, timeout_ms=timeout_ms, connect_timeout_ms=connect_timeout_ms, copies=copies)


def connect(
    url: str,
    *,
    timeout_ms: int = 250,
    connect_timeout_ms: int = 100,
    max_connections: int = 64,
    copies: Copies = ONE,
) -> Server:
    """A client whose waits are bounded, and that replaces a lost connection once.

    An operation waits at most `timeout_ms` for a free connection, `connect_timeout_ms` for a new
    one, and `timeout_ms` for each reply. Call `aclose` on it in the event loop that used it.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=timeout_ms / 1000,
        socket_timeout=timeout_ms / 1000,
        socket_connect_timeout=connect_timeout_ms / 1000,
        # Balancers reset idle connections, which shows only at the next write; every write of ours
        # can be repeated. A timeout is not tried again: that would spend the budget twice.
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.exceptions.ConnectionError,)),
    )
    client = Server(connection_pool=pool)
    client.auto_close_connection_pool = True
    client.copies = copies
    return client


def connect_cluster(
    url: str,
    *,
    timeout_ms: int = 250,
    connect_timeout_ms: int = 100,
    max_connections: int = 64,
    copies: Copies = ONE,
) -> Cluster:
    """The same for a cluster; `max_connections` are those to each of its nodes."""
    given, options = parse_cluster_url(url)
    timeouts = {
        "socket_timeout": timeout_ms / 1000,
        "socket_connect_timeout": connect_timeout_ms / 1000,
    }
    return Cluster(
        given,
        copies=copies,
        max_connections=max_connections,
        wait_s=timeout_ms / 1000,
        **(timeouts | options),
    )


def check_url(url: str) -> None:
    """Raises ValueError, whose message may quote a part of the password."""
    (parse_cluster_url if is_cluster(url) else parse_url)(url)


def is_cluster(url: str) -> bool:
    return urlsplit(url).scheme.endswith(_CLUSTER)


def parse_cluster_url(url: str) -> tuple[list[Address], dict[str, Any]]:
    """The nodes that a `redis+cluster://` or `rediss+cluster://` URL names, and the options of
    connections. Raises ValueError as `check_url`."""
    parts = urlsplit(url)
    login, at, nodes = parts.netloc.rpartition("@")
    given = []
    for node in nodes.split(","):
        one = urlsplit(f"//{node}")
        if not one.hostname:
            raise ValueError(f"{node!r} names no host")
        given.append((one.hostname, one.port or _PORT))
    scheme = parts.scheme.removesuffix(_CLUSTER)
    alone = parts._replace(scheme=scheme, netloc=f"{login}{at}{nodes.split(',')[0]}")
    options: dict[str, Any] = dict(parse_url(alone.geturl()))
    if options.get("db"):
        raise ValueError("a cluster has no database but 0")
    for name in ("host", "port", "db"):
        options.pop(name, None)
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    return given, options
