"""Made-up users with histories over a catalogue's items, and what they ask for.

Some users come far more often than others (Zipf's law), and so do items. Nothing here knows a
bundle, numpy or HTTP: whoever generates load needs no more than the ids of items.
"""

import json
from bisect import bisect
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from random import Random
from typing import Any

K = 10
_FIRST_EVENT = 1_700_000_000
_SHORTEST, _LONGEST = 2, 30


class Zipf:
    """Ranks from 0 below `count`; that of rank r comes up in proportion to (r + 1) ** -exponent."""

    def __init__(self, count: int, exponent: float = 1.0) -> None:
        self._sums = list(accumulate((rank + 1) ** -exponent for rank in range(count)))

    def draw(self, chance: Random) -> int:
        drawn = bisect(self._sums, chance.random() * self._sums[-1])
        return min(drawn, len(self._sums) - 1)


class Users:
    """`count` users, numbered from the most frequent; the same for the same seed.

    items: ids, the most popular first
    exponent: of the law by which users come; 0: all alike
    """

    def __init__(
        self,
        items: Sequence[str],
        count: int,
        seed: int = 20,
        *,
        name: str = "bench",
        exponent: float = 1.0,
    ) -> None:
        self.items = items
        self.ids = [f"{name}-{seed}-{number}" for number in range(count)]
        self._seed = seed
        self._chance = Random(seed)
        self._visits = Zipf(count, exponent)
        self._picks = Zipf(len(items))

    @cached_property
    def histories(self) -> list[list[str]]:
        """Of everybody, before they come: item ids, the oldest first."""
        chance = Random(self._seed)
        return [
            [self.pick(chance) for _ in range(chance.randint(_SHORTEST, _LONGEST))]
            for _ in self.ids
        ]

    def pick(self, chance: Random) -> str:
        """An item, more likely a popular one."""
        return self.items[self._picks.draw(chance)]

    def come(self, chance: Random) -> int:
        """The number of the user who comes next."""
        return self._visits.draw(chance)

    def draw(self, count: int) -> list[int]:
        """Numbers of the users who come, one visit after the other."""
        return [self.come(self._chance) for _ in range(count)]

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
