"""A real Redis Cluster: three primaries with a replica each, in processes of their own."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from redis.crc import key_slot

from service.history import keys
from tests.faults.processes import Redis, eventually, free_port

NODE_TIMEOUT_MS = 1000
"""Until a node that does not answer is called failed, and its replica takes over."""
_SLOTS = 16_384
_PRIMARIES = 3


class RedisCluster:
    """`nodes` in their order: primaries first, then a replica of each, until one takes over."""

    def __init__(self, folder: Path, **options: str) -> None:
        self._buses = [str(free_port()) for _ in range(2 * _PRIMARIES)]
        self.nodes = [
            Redis(
                free_port(),
                folder / str(number),
                **{
                    "cluster-enabled": "yes",
                    "cluster-port": bus,
                    "cluster-node-timeout": str(NODE_TIMEOUT_MS),
                    # Users of the other primaries are served while one has no successor yet.
                    "cluster-require-full-coverage": "no",
                    "repl-diskless-sync-delay": "0",
                    **options,
                },
            )
            for number, bus in enumerate(self._buses)
        ]

    @property
    def url(self) -> str:
        """Names two of them, of which no test kills both."""
        first, *_, last = (f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"redis+cluster://{first},{last}"

    def form(self) -> None:
        """Makes a cluster of nodes that have just been started."""
        first = self.nodes[0]
        for node, bus in list(zip(self.nodes, self._buses, strict=True))[1:]:
            first.command("CLUSTER", "MEET", "127.0.0.1", str(node.port), bus)
        share = -(-_SLOTS // _PRIMARIES)
        for number, node in enumerate(self.nodes[:_PRIMARIES]):
            last = min((number + 1) * share, _SLOTS) - 1
            node.command("CLUSTER", "ADDSLOTSRANGE", str(number * share), str(last))
        eventually(lambda: all(len(self._known(node)) == len(self.nodes) for node in self.nodes))
        for primary, replica in zip(self.nodes[:_PRIMARIES], self.nodes[_PRIMARIES:], strict=True):
            replica.command("CLUSTER", "REPLICATE", self.id_of(primary))
        eventually(self.whole)

    def whole(self) -> bool:
        """Whether every slot has a primary, and every primary a replica that follows."""
        followed = [node for node in self.primaries() if self.role(node)[2]]
        return len(followed) == _PRIMARIES and all(map(self._ok, self.nodes))

    def primary_of(self, user_id: str) -> Redis:
        """Who has a user now, in the eyes of the first node that runs and answers."""
        slot = key_slot(keys(user_id).events.encode())
        node = next(node for node in self.nodes if node.runs)
        for first, last, (_, port, *_), *_ in node.command("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"slot {slot} has no primary")

    def id_of(self, node: Redis) -> str:
        return str(node.command("CLUSTER", "MYID").decode())

    @staticmethod
    def role(node: Redis) -> Any:
        """`ROLE`'s answer: for a primary its name, offset and replicas; for a replica its state."""
        return node.command("ROLE")

    def primaries(self) -> list[Redis]:
        return [n for n in self.nodes if n.runs and self.role(n)[0] == b"master"]

    def stored_keys(self) -> list[str]:
        """All there are, on every primary."""
        found = [node.command("KEYS", "*") for node in self.primaries()]
        return [key.decode() for of_node in found for key in of_node]

    def empty(self) -> None:
        for node in self.primaries():
            node.command("FLUSHALL")
        eventually(self.caught_up)

    def caught_up(self) -> bool:
        """Whether every primary has a replica that says it has all of it."""
        roles = [self.role(node) for node in self.primaries()]
        return all(
            any(int(offset) == reached for *_, offset in followers)
            for _, reached, followers in roles
        )

    @staticmethod
    def _known(node: Redis) -> list[str]:
        return [line for line in _text(node.command("CLUSTER", "NODES")).splitlines() if line]

    @staticmethod
    def _ok(node: Redis) -> bool:
        return "cluster_state:ok" in _text(node.command("CLUSTER", "INFO"))


def _text(answer: Any) -> str:
    return answer.decode() if isinstance(answer, bytes) else str(answer)


@contextmanager
def running_cluster(folder: Path, **options: str) -> Iterator[RedisCluster]:
    cluster = RedisCluster(folder, **options)
    folder.mkdir(exist_ok=True)
    with ExitStack() as stack:
        for node in cluster.nodes:
            stack.enter_context(node)
        cluster.form()
        yield cluster
