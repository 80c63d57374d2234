"""A Redis Cluster as one client: commands to the nodes of their keys, and new primaries found.

redis-py knows the nodes, the slots and the connections. Its pipelines are not used: when one node
cannot be reached they drop the connections to all others, with what is under way on them, and they
cannot put a WAIT behind a write on the same connection.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import redis.exceptions
from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode, PipelineCommand

from service.redis_command import Command, Copies, raised

Address = tuple[str, int]

_ROUNDS = 4
"""To a lost connection's successor, to where a slot has moved, and on while a key is moving."""
_LOOK_S = 0.1
"""Between two looks at who is primary: a look makes every connection be opened anew."""
_MOVING_S = 0.02
_SPARE = 8
"""Connections to a node beside those of commands: for looks."""

_DOWN = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.ClusterDownError,
    OSError,
)


class Cluster(RedisCluster):
    """For one event loop. At most `max_connections` commands are under way at a node; others wait
    for `wait_s`.

    Whoever is primary is looked up when a node fails, and asked of the nodes that are known or, if
    none of them answers, of those that were `given`.
    """

    def __init__(
        self,
        given: Sequence[Address],
        *,
        copies: Copies,
        max_connections: int,
        wait_s: float,
        **options: Any,
    ) -> None:
        nodes = [ClusterNode(host, port) for host, port in given]
        super().__init__(startup_nodes=nodes, max_connections=max_connections + _SPARE, **options)
        self.copies = copies
        self._given = given
        self._places: dict[str, asyncio.Semaphore] = {}
        self._max_places = max_connections
        self._wait_s = wait_s
        self._looked = float("-inf")

    async def pipelined(self, commands: Sequence[Command], *, kept: bool) -> list[Any]:
        """The answers in the same order, exceptions in their place. `kept`: as `copies` say."""
        answers: list[Any] = [None] * len(commands)
        left = list(range(len(commands)))
        for round_ in range(_ROUNDS):
            await self.initialize()
            shares = self._shares(commands, answers, left)
            await asyncio.gather(
                *(
                    self._ask(node, commands, positions, answers, kept=kept, asking=asking)
                    for (node, asking), positions in shares.items()
                )
            )
            left = [i for i in left if _again(answers[i], round_)]
            if not left:
                break
            if any(isinstance(answers[i], redis.exceptions.TryAgainError) for i in left):
                await asyncio.sleep(_MOVING_S)
        return answers

    async def ping(self, **_: Any) -> bool:
        """Whether every primary answers; raises what kept one from it."""
        await self.initialize()
        primaries = self.get_primaries()
        pings = [Command("", ("PING",))] * len(primaries)
        answers: list[Any] = [None] * len(pings)
        await asyncio.gather(
            *(
                self._ask(node, pings, [position], answers, kept=False, asking=False)
                for position, node in enumerate(primaries)
            )
        )
        raised(answers)
        return True

    def _shares(
        self, commands: Sequence[Command], answers: Sequence[Any], left: Sequence[int]
    ) -> dict[tuple[ClusterNode, bool], list[int]]:
        """Positions by the node that is to be asked next, and whether its key is only on its way
        there."""
        shares: dict[tuple[ClusterNode, bool], list[int]] = defaultdict(list)
        for position in left:
            answer = answers[position]
            node = None
            if type(answer) is redis.exceptions.AskError:
                node = self.get_node(host=answer.host, port=answer.port)
            asking = node is not None
            if node is None:
                node = self.get_node_from_key(commands[position].key)
            assert node is not None  # only a replica may be missing
            shares[node, asking].append(position)
        return shares

    async def _ask(
        self,
        node: ClusterNode,
        commands: Sequence[Command],
        positions: Sequence[int],
        answers: list[Any],
        *,
        kept: bool,
        asking: bool,
    ) -> None:
        """Has one node run its share, on one connection, and writes down what it answered."""
        sent = {i: PipelineCommand(i, *commands[i].words, **commands[i].options) for i in positions}
        line = list(sent.values())
        if asking:
            line = [one for each in line for one in (PipelineCommand(-1, "ASKING"), each)]
        wait = PipelineCommand(-1, *self.copies.command) if kept and self.copies.replicas else None
        if wait is not None:
            line.append(wait)
        try:
            async with self._place(node):
                await node.execute_pipeline(line)
        except _DOWN as error:
            for one in line:
                one.result = error
        refusal = None if wait is None else self.copies.refusal(wait.result)
        for position, one in sent.items():
            failed = isinstance(one.result, Exception)
            answers[position] = refusal if refusal is not None and not failed else one.result
        for one in sent.values():
            if isinstance(one.result, redis.exceptions.MovedError):
                await self.nodes_manager.move_slot(one.result)
        if any(_down(one.result) for one in sent.values()):
            await self._look(node)

    @asynccontextmanager
    async def _place(self, node: ClusterNode) -> AsyncIterator[None]:
        places = self._places.setdefault(node.name, asyncio.Semaphore(self._max_places))
        try:
            async with asyncio.timeout(self._wait_s):
                await places.acquire()
        except TimeoutError:
            raise redis.exceptions.MaxConnectionsError("all connections are in use") from None
        try:
            yield
        finally:
            places.release()

    async def _look(self, failed: ClusterNode) -> None:
        """Looks up who is primary; what was known stays where nobody says."""
        if monotonic() - self._looked < _LOOK_S:
            return
        self._looked = monotonic()
        try:
            await self.nodes_manager.initialize(self._elsewhere(), failed.name)
        except (redis.exceptions.RedisClusterException, *_DOWN):
            return

    async def initialize(
        self,
        additional_startup_nodes_info: list[Address] | None = None,
        last_failed_node_name: str | None = None,
    ) -> RedisCluster:
        return await super().initialize(self._elsewhere(), last_failed_node_name)

    def _elsewhere(self) -> list[Address]:
        """Those given that are not known as nodes: names stay, addresses of pods do not."""
        known = self.nodes_manager.startup_nodes
        return [one for one in self._given if "{}:{}".format(*one) not in known]


def _down(answer: object) -> bool:
    full = isinstance(answer, redis.exceptions.MaxConnectionsError)
    return isinstance(answer, _DOWN) and not full


def _again(answer: object, round_: int) -> bool:
    """Whether to ask once more: every write of ours can be repeated. A timeout is not tried again:
    that would spend the budget twice."""
    moving = (redis.exceptions.AskError, redis.exceptions.TryAgainError)
    lost = type(answer) is redis.exceptions.ConnectionError and round_ == 0
    return lost or isinstance(answer, moving)
