"""The end of the service itself: at once, and politely."""

import http.client
import json
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx

from model_store.bundle import Bundle
from tests.faults.conftest import Report
from tests.faults.processes import Service, eventually
from tests.faults.traffic import check

USERS = 8
PER_BATCH = 25
HEADERS = {"Content-Type": "application/json", "Connection": "close"}


def _batches(user: int) -> list[list[dict[str, object]]]:
    """As many as a history keeps."""
    return [
        [
            {
                "event_id": f"e{number}",
                "user_id": f"user-{user}",
                "item_id": f"item-{number}",
                "timestamp": 1_750_000_000 + number,
            }
            for number in range(start, start + PER_BATCH)
        ]
        for start in range(0, 200, PER_BATCH)
    ]


def test_service_killed(bundle: Bundle, tmp_path: Path, scale: float, report: Report) -> None:
    rounds, acknowledged, cut = max(1, round(scale / 2)), 0, 0
    for turn in range(rounds):
        seen = _killed_once(bundle, tmp_path / str(turn))
        acknowledged, cut = acknowledged + seen[0], cut + seen[1]
    assert acknowledged
    report.saw(
        f"{rounds} times: {acknowledged} events acknowledged, 0 lost, {cut} batches cut off;"
        " repeated, all events of all batches are there once"
    )


def _killed_once(bundle: Bundle, folder: Path) -> tuple[int, int]:
    """Kills a service under way; events acknowledged, and batches without an answer."""
    folder.mkdir()
    settings = {"bundle": bundle.path, "engine": "fake", "state_dir": folder / "state"}
    acknowledged: list[tuple[str, str]] = []
    with Service(folder / "log", settings) as service, ThreadPoolExecutor(USERS) as pool:

        def send(user: int) -> int:
            """Batches that were not answered."""
            with service.client() as client:
                for done, batch in enumerate(_batches(user)):
                    try:
                        document = check(client.post("/v1/events", json=batch))
                    except httpx.TransportError:
                        return 8 - done
                    assert document == {"accepted": PER_BATCH, "duplicates": 0}
                    acknowledged.extend((str(e["user_id"]), str(e["event_id"])) for e in batch)
            return 0

        sending = [pool.submit(send, user) for user in range(USERS)]
        eventually(lambda: len(acknowledged) > USERS * 25)
        assert service.end(signal.SIGKILL) == -signal.SIGKILL
        cut = sum(task.result() for task in sending)
    with Service(folder / "again", settings) as service, service.client() as client:

        def kept() -> list[tuple[str, str]]:
            histories = [client.get(f"/v1/users/user-{u}/history").json() for u in range(USERS)]
            return [(h["user_id"], e["event_id"]) for h in histories for e in h["events"]]

        assert set(acknowledged) <= set(kept())
        there, new = len(kept()), 0
        for user in range(USERS):
            for batch in _batches(user):
                new += client.post("/v1/events", json=batch).json()["accepted"]
        assert there + new == USERS * 200
        assert len(set(kept())) == len(kept()) == USERS * 200
        assert service.end() == 0
    return len(acknowledged), cut


def test_terminated_at_full_load(
    bundle: Bundle, tmp_path: Path, scale: float, report: Report
) -> None:
    settings = {
        "bundle": bundle.path,
        "engine": "fake",
        "engine_options": '{"delay_ms": 200}',
        "max_in_flight": 16,
        "state_dir": tmp_path / "state",
    }
    outcomes: Counter[str] = Counter()
    ended = threading.Event()

    def ask(number: int) -> None:
        """A new connection each time: what becomes of idle ones is not the question here."""
        body = json.dumps({"history": [f"item-{number}"]})
        while not ended.is_set():
            connection = http.client.HTTPConnection(host, timeout=60)
            with closing(connection):
                try:
                    connection.connect()
                except OSError:
                    return
                try:
                    connection.request("POST", "/v1/recommendations", body, HEADERS)
                    answer = connection.getresponse()
                    content = answer.read()
                except (OSError, http.client.HTTPException):
                    # The kernel had taken the connection, and the service never saw it.
                    outcomes["unseen"] += 1
                    return
            assert answer.status == 200 or answer.getheader("retry-after"), content
            assert b"Traceback" not in content
            outcomes[str(answer.status)] += 1

    with Service(tmp_path / "log", settings) as service, ThreadPoolExecutor(24) as pool:
        host = service.url.removeprefix("http://")
        asking = [pool.submit(ask, number) for number in range(24)]
        time.sleep(0.5 * scale)
        eventually(lambda: min(outcomes["200"], outcomes["503"]) > 0)
        service.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        code = service.process.wait(60)
        took_s = time.monotonic() - began
        ended.set()
        for task in asking:
            task.result()
        handled = Counter(str(line["status"]) for line in service.lines("request"))
        answered = {status: n for status, n in outcomes.items() if status.isdecimal()}
        assert answered == handled  # whatever the service began, somebody got
        assert code == 0
        assert "Traceback" not in service.said
    report.saw(
        f"{outcomes['200']} answered, {outcomes['503']} refused with 503 (16 are admitted at once);"
        f" all {sum(handled.values())} requests that the service began reached their clients; exit"
        f" code {code} after {took_s:.1f} s"
    )
