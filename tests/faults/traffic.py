"""Users at work while something breaks, and the account of what they were answered."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import httpx

from tests.faults import at_work
from tests.faults.at_work import AtWork
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


class Traffic(AtWork):
    """Two threads that send events, each batch until it is acknowledged, and two that ask for
    recommendations, from `with` to its end."""

    def __init__(self, service: Service, name: str = "user") -> None:
        super().__init__(4)
        self._service = service
        self._name = name
        self.acknowledged: list[dict[str, Any]] = []
        self.answers: dict[str, list[Answered]] = {"events": [], "recommendations": []}

    def __enter__(self) -> Self:
        with self._service.client() as client:  # so that there is somebody to recommend to
            self._post(client, [self._event(0, number) for number in range(BATCH)])
        work: list[tuple[Callable[[httpx.Client, int], None], int]] = [
            *((self._send, thread) for thread in (1, 2)),
            *((self._ask, thread) for thread in (1, 2)),
        ]
        self.begin(partial(self._repeat, *each) for each in work)
        return self

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
        """See `at_work.missing`."""
        with self._service.client() as client:
            return at_work.missing(client, self.acknowledged)

    def lost(self) -> int:
        """See `at_work.lost`."""
        with self._service.client() as client:
            return at_work.lost(client, self.acknowledged)

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
        while not self.over.is_set():
            batch = [self._event(thread, number + i) for i in range(BATCH)]
            number += BATCH
            while not self._post(client, batch) and not self.over.is_set():
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
        while not self.over.is_set():
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
