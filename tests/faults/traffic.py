"""Users at work while something breaks, and the account of what they were answered."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from tests.faults.processes import Service, eventually

PER_USER = 60
"""Events; fewer than a history keeps."""
BATCH = 3
PATIENT_S = 30
"""No answer may take longer, on a test machine that does other things too."""


@dataclass(frozen=True, slots=True)
class Answered:
    """`how` is the reason of a fallback, the source where there is none, or the problem's type."""

    status: int
    how: str
    seconds: float


def check(answer: httpx.Response) -> dict[str, Any]:
    """What every answer owes, whatever has broken; its document."""
    assert answer.status_code in (200, 503), answer.text
    assert "Traceback" not in answer.text
    document: dict[str, Any] = answer.json()
    if answer.status_code == 503:
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) > 0
    return document


class Traffic:
    """Two threads that send events, each batch until it is acknowledged, and two that ask for
    recommendations, from `with` to its end."""

    def __init__(self, service: Service, name: str = "user") -> None:
        self._service = service
        self._name = name
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(4)
        self._threads: list[Future[None]] = []
        self.acknowledged: list[dict[str, Any]] = []
        self.answers: dict[str, list[Answered]] = {"events": [], "recommendations": []}

    def __enter__(self) -> Self:
        with self._service.client() as client:  # so that there is somebody to recommend to
            self._post(client, [self._event(0, number) for number in range(BATCH)])
        work: list[tuple[Callable[[httpx.Client, int], None], int]] = [
            *((self._send, thread) for thread in (1, 2)),
            *((self._ask, thread) for thread in (1, 2)),
        ]
        self._threads = [self._pool.submit(self._repeat, *each) for each in work]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._pool.shutdown()
        if error is None:
            self.stop()

    def stop(self) -> None:
        """Ends the work; raises what any of the users found wrong."""
        self._stop.set()
        for thread in self._threads:
            thread.result()

    def wait(self, seconds: float) -> None:
        """Lets the users work; raises what any of them found wrong."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            for thread in self._threads:
                if thread.done():
                    thread.result()
            time.sleep(min(left, 0.1))

    def until_well(self, how: str = "model") -> float:
        """Seconds until events are accepted, and recommendations answered like this."""
        before = {kind: len(answers) for kind, answers in self.answers.items()}

        def well() -> bool:
            news = {kind: answers[before[kind] :] for kind, answers in self.answers.items()}
            return any(a.status == 200 for a in news["events"]) and any(
                a.how == how for a in news["recommendations"]
            )

        try:
            return eventually(well)
        except AssertionError:
            raise AssertionError(f"{self.how('events')}, {self.how('recommendations')}") from None

    def how(self, kind: str) -> Counter[str]:
        return Counter(answer.how for answer in self.answers[kind])

    def accepted(self) -> int:
        """Batches."""
        return self.how("events")["accepted"]

    def slowest_s(self, kind: str) -> float:
        return max(answer.seconds for answer in self.answers[kind])

    def missing(self) -> int:
        """How many acknowledged events are not in the histories of their users."""
        kept: set[tuple[str, str]] = set()
        with self._service.client() as client:
            for user in {event["user_id"] for event in self.acknowledged}:
                events = client.get(f"/v1/users/{user}/history").json()["events"]
                assert len({event["event_id"] for event in events}) == len(events)
                kept |= {(user, event["event_id"]) for event in events}
        return len({(e["user_id"], e["event_id"]) for e in self.acknowledged} - kept)

    def lost(self) -> int:
        """The same; where none is, none is new when all are sent again."""
        lost = self.missing()
        with self._service.client() as client:
            for start in range(0, 0 if lost else len(self.acknowledged), 500):
                again = client.post("/v1/events", json=self.acknowledged[start : start + 500])
                assert again.json()["accepted"] == 0, again.text
        return lost

    def account(self) -> str:
        """Statuses and reasons, counted, in words."""
        asked, sent = self.how("recommendations"), self.how("events")
        ways = ", ".join(
            f"{n} {'by the model' if how == 'model' else how}" for how, n in asked.most_common()
        )
        refused = sum(n for how, n in sent.items() if how != "accepted")
        slowest = self.slowest_s("recommendations")
        return (
            f"{asked.total()} recommendations with 200 ({ways}; slowest {slowest:.2f} s);"
            f" {len(self.acknowledged)} events acknowledged, {refused} batches refused with 503"
        )

    def _repeat(self, work: Callable[[httpx.Client, int], None], thread: int) -> None:
        with self._service.client(PATIENT_S) as client:
            work(client, thread)

    def _send(self, client: httpx.Client, thread: int) -> None:
        number = 0
        while not self._stop.is_set():
            batch = [self._event(thread, number + i) for i in range(BATCH)]
            number += BATCH
            while not self._post(client, batch) and not self._stop.is_set():
                time.sleep(0.05)
            time.sleep(0.005)

    def _post(self, client: httpx.Client, batch: list[dict[str, Any]]) -> bool:
        began = time.monotonic()
        answer = client.post("/v1/events", json=batch)
        document = check(answer)
        there = answer.status_code == 200
        how = "accepted" if there else document["type"]
        if there:
            assert document["accepted"] + document["duplicates"] == len(batch)
            self.acknowledged += batch
        else:
            assert how == "urn:sidrec:problem:history-unavailable", document
        self.answers["events"].append(Answered(answer.status_code, how, time.monotonic() - began))
        return there

    def _ask(self, client: httpx.Client, thread: int) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            answer = client.post(
                "/v1/recommendations", json={"user_id": f"{self._name}-0-0", "k": 10}
            )
            document = check(answer)
            assert answer.status_code == 200, document
            assert len(document["items"]) == 10
            how = document["reason"] or document["source"]
            assert (document["source"] == "model") == (document["reason"] is None)
            self.answers["recommendations"].append(Answered(200, how, time.monotonic() - began))
            time.sleep(0.005)

    def _event(self, thread: int, number: int) -> dict[str, Any]:
        return {
            "event_id": f"e{number}",
            "user_id": f"{self._name}-{thread}-{number // PER_USER}",
            "item_id": f"item-{number % 300}",
            "timestamp": 1_750_000_000 + number,
        }
