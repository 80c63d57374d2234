"""Made-up users with histories over a bundle's items, and what they ask for.

Some users come far more often than others (Zipf's law), and so do items.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from model_store.bundle import Bundle

K = 10
_FIRST_EVENT = 1_700_000_000
_SHORTEST, _LONGEST = 2, 30


class Users:
    """`count` users, numbered from the most frequent; the same for the same seed."""

    def __init__(self, bundle: Bundle, count: int, seed: int = 20) -> None:
        rng = np.random.default_rng(seed)
        self.bundle = bundle
        self._rng = rng
        ids, popular = bundle.catalogue.item_ids, bundle.catalogue.popular()
        lengths = rng.integers(_SHORTEST, _LONGEST + 1, size=count)
        share = _zipf(len(popular))
        self._visits = _zipf(count)
        self.rows = [rng.choice(popular, size=int(n), p=share).tolist() for n in lengths]
        self.histories = [[ids[row] for row in rows] for rows in self.rows]
        self.ids = [f"bench-{seed}-{number}" for number in range(count)]

    def draw(self, count: int) -> list[int]:
        """Numbers of the users who come, one visit after the other."""
        drawn: list[int] = self._rng.choice(len(self.ids), size=count, p=self._visits).tolist()
        return drawn

    def body(self, user: int, *, stored: bool) -> bytes:
        """A request for recommendations, from the history that is stored or one that it brings."""
        asked: dict[str, Any] = {"user_id": self.ids[user], "k": K}
        if not stored:
            asked["history"] = self.histories[user]
        return json.dumps(asked).encode()

    def bodies(self, count: int, *, stored: bool = True) -> list[bytes]:
        """What they ask for in `count` visits."""
        return [self.body(user, stored=stored) for user in self.draw(count)]

    def events(self, at_once: int = 500) -> Iterator[bytes]:
        """Requests that store everybody's history."""
        events = [
            {
                "event_id": f"{user}-{place}",
                "user_id": user,
                "item_id": item,
                "type": "click",
                "timestamp": _FIRST_EVENT + 60 * place,
            }
            for user, history in zip(self.ids, self.histories, strict=True)
            for place, item in enumerate(history)
        ]
        for start in range(0, len(events), at_once):
            yield json.dumps({"events": events[start : start + at_once]}).encode()


def _zipf(count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    weight = 1 / np.arange(1, count + 1)
    return np.asarray(weight / weight.sum(), np.float64)
