"""What becomes of answers when the engine fails: real torch engine, real process."""

import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from model_store.bundle import Bundle
from tests.faults.breakable import POISON
from tests.faults.conftest import Report
from tests.faults.processes import Service, eventually
from tests.faults.traffic import Traffic, check

HISTORY = ["item-1", "item-2", "item-3"]


@pytest.fixture(scope="module")
def breakable(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("engine")
    settings = {"bundle": bundle.path, "state_dir": folder / "state"}
    with Service(folder / "log", settings, module="tests.faults.breakable") as service:
        yield service


def test_one_query_of_a_batch_raises(breakable: Service, scale: float, report: Report) -> None:
    def ask(number: int) -> tuple[int, str]:
        width = POISON if number % 8 == 0 else POISON + 1
        body = {"history": HISTORY, "k": 10, "beam_width": width}
        document = check(client.post("/v1/recommendations", json=body))
        assert len(document["items"]) == 10
        return width, document["reason"] or document["source"]

    def batches_of_several() -> float:
        alone = breakable.metric('sidrec_engine_batch_size_bucket{le="1.0"}')
        return breakable.metric("sidrec_engine_batch_size_count") - alone

    asked, before = int(200 * scale), batches_of_several()
    with breakable.client() as client, ThreadPoolExecutor(16) as pool:
        how = Counter(pool.map(ask, range(asked)))
    poisoned, others = how[POISON, "engine_error"], how[POISON + 1, "model"]
    assert (poisoned, others) == (asked // 8, asked - asked // 8)
    together = batches_of_several() - before
    assert together  # else nothing was shown of batches
    report.saw(
        f"{poisoned} of {poisoned} popular (engine_error), {others} of {others} by the model;"
        f" {together:.0f} batches of several"
    )


def test_engine_thread_dies(breakable: Service, scale: float, report: Report) -> None:
    with Traffic(breakable) as traffic, breakable.client() as client:
        traffic.wait(0.4 * scale)
        breakable.process.send_signal(signal.SIGUSR1)

        def unready() -> dict[str, Any] | None:
            answer = client.get("/readyz")
            return check(answer) if answer.status_code == 503 else None

        noticed_s = eventually(lambda: unready() is not None)
        traffic.wait(0.4 * scale)
        problem = unready()
        assert problem is not None
        assert problem["type"] == "urn:sidrec:problem:engine-dead"
        assert client.get("/livez").json() == {"status": "alive"}
        traffic.stop()
        assert set(traffic.how("recommendations")) == {"model", "engine_dead"}
        lost = traffic.lost()
        assert lost == 0
    assert breakable.end() == 0
    report.saw(
        f"{traffic.account()}, {lost} lost; /readyz said so after {noticed_s:.1f} s; exit code 0"
    )
