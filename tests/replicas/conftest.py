"""One cluster for all tests that leave it whole."""

import signal
from collections.abc import Iterator

import pytest

from tests.faults.processes import eventually
from tests.replicas.redis_cluster import RedisCluster, running_cluster


@pytest.fixture(scope="package")
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with running_cluster(tmp_path_factory.mktemp("six")) as cluster:
        yield cluster


@pytest.fixture
def cluster(own_cluster: RedisCluster) -> Iterator[RedisCluster]:
    """Empty, and whole; so it must be again when the test is over."""
    eventually(own_cluster.whole)
    own_cluster.empty()
    yield own_cluster
    for node in own_cluster.nodes:
        if node.runs:
            node.signal(signal.SIGCONT)
        else:
            node.start()
    eventually(own_cluster.whole, 60)
