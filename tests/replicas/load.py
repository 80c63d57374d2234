"""Mixed load on replicas behind a balancer, and an account of every answer and every event."""

import itertools
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import httpx

from tests.faults import at_work
from tests.faults.at_work import AtWork
from tests.faults.processes import eventually
from tests.faults.traffic import check

BATCH = 3
PER_USER = 60
"""Events; fewer than a history keeps."""
K = 10
HISTORY_AWAY = "urn:sidrec:problem:history-unavailable"
CATALOGUE_AWAY = "urn:sidrec:problem:catalogue-unavailable"
_PATIENT_S = 60
_AGAIN = 3
"""Batches that were refused before and are sent again beside a new one."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer, asked for `at` by the monotonic clock; `how` is what it says of itself."""

    kind: str
    at: float
    seconds: float
    status: int
    how: str
    user: str


@dataclass
class Load(AtWork):
    """Threads that send events, ask for recommendations and change items, at a steady rate, from
    `with` to its end. Nothing but 200, and 503 of Redis being away, is accepted."""

    url: str
    pause_s: float = 0.05
    seen: list[Seen] = field(default_factory=list)
    acknowledged: list[dict[str, Any]] = field(default_factory=list)
    items: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(5)
        self._refused: dict[int, deque[list[dict[str, Any]]]] = {}

    def __enter__(self) -> Self:
        work = [self._tell, self._tell, self._ask, self._ask, self._change]
        self.begin(partial(self._run, one, n) for n, one in enumerate(work))
        return self

    def until_well(self) -> None:
        """Until every user's events are taken, those that were refused too, and every user is
        answered by the model."""

        def well() -> bool:
            since = time.monotonic() - 1.5
            lately = [seen for seen in self.seen if seen.at > since]
            users = {seen.user for seen in lately if seen.kind == "events"}
            return len(users) > 6 and all(map(_well, lately)) and not any(self._refused.values())

        eventually(well, 120)

    def how(self, kind: str, since: float = 0.0) -> Counter[str]:
        return Counter(seen.how for seen in self.seen if seen.kind == kind and seen.at >= since)

    def trouble(self, kind: str, since: float) -> tuple[int, float]:
        """How many were not answered as they are when all is well, from `since` on, and the seconds
        until the last of them."""
        bad = [s for s in self.seen if s.kind == kind and s.at >= since and not _well(s)]
        return len(bad), max((s.at + s.seconds - since for s in bad), default=0.0)

    def slowest_s(self, kind: str, since: float = 0.0) -> float:
        return max((s.seconds for s in self.seen if s.kind == kind and s.at >= since), default=0.0)

    def lost(self) -> int:
        """See `at_work.lost`."""
        with httpx.Client(base_url=self.url, timeout=_PATIENT_S) as client:
            return at_work.lost(client, self.acknowledged)

    def _run(self, work: Callable[[httpx.Client, int, int], None], thread: int) -> None:
        with httpx.Client(base_url=self.url, timeout=_PATIENT_S) as client:
            for number in itertools.count():
                if self.over.is_set():
                    return
                work(client, thread, number)
                time.sleep(self.pause_s)

    def _tell(self, client: httpx.Client, thread: int, number: int) -> None:
        # Users take turns, so that each moment has users of every primary.
        user = f"user-{thread}-{number * BATCH // (20 * PER_USER)}-{number % 20}"
        batch = [
            {
                "event_id": f"e{number}-{place}",
                "user_id": user,
                "item_id": f"p{(7 * number + place) % 2000 + 1:05d}",
                "timestamp": 1_750_000_000 + number,
            }
            for place in range(BATCH)
        ]
        refused = self._refused.setdefault(thread, deque())
        for one in [batch, *itertools.islice(refused, _AGAIN)]:
            if self._post(client, "events", "/v1/events", one, one[0]["user_id"]) is not None:
                self.acknowledged += one
                if one is not batch:
                    refused.remove(one)
            elif one is batch:
                refused.append(one)
            else:
                return

    def _ask(self, client: httpx.Client, thread: int, number: int) -> None:
        user = f"user-{thread - 2}-0-{number % 20}"  # one of those that the other threads tell of
        wanted = {"user_id": user, "k": K}
        answer = self._post(client, "recommendations", "/v1/recommendations", wanted, user)
        assert answer is not None
        assert len(answer["items"]) == K

    def _change(self, client: httpx.Client, thread: int, number: int) -> None:
        item, price = f"new-{number % 5}", float(number)
        began = time.monotonic()
        answer = client.put(
            f"/v1/items/{item}", json={"title": "A lamp", "attributes": {"price": price}}
        )
        if self._note("items", began, answer, item) is not None:
            self.items[item] = price
        time.sleep(5 * self.pause_s)

    def _post(
        self, client: httpx.Client, kind: str, path: str, body: Any, user: str
    ) -> dict[str, Any] | None:
        began = time.monotonic()
        return self._note(kind, began, client.post(path, json=body), user)

    def _note(
        self, kind: str, began: float, answer: httpx.Response, user: str
    ) -> dict[str, Any] | None:
        """The document of a 200; None for a refusal that is documented."""
        document = check(answer)
        seconds = time.monotonic() - began
        if answer.status_code == 200:
            how = document.get("reason") or document.get("source") or "accepted"
        else:
            how = document["type"]
            allowed = {"events": HISTORY_AWAY, "items": CATALOGUE_AWAY}
            assert how == allowed.get(kind), f"{kind}: {answer.text}"
        self.seen.append(Seen(kind, began, seconds, answer.status_code, how, user))
        return document if answer.status_code == 200 else None


def _well(seen: Seen) -> bool:
    return seen.how in ("model", "accepted", "no_history")
