"""What users do: they come, look at recommendations, click, and go.

A session begins with a recommendation; what follows is an event or another one. The item of an
event is one that was just shown, the first rather than the last, or some popular one where nothing
has been shown. The answer decides what is clicked, never when: so load stays open.

Of many sessions whose users think for an exponential time, the requests are together a Poisson
process, and each request belongs to any of the sessions with the same probability. So traffic of a
given rate is made from moments of that rate and `rate * think_s` sessions, one of which is drawn
for each.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from bench.users import Users

RECOMMENDATIONS, EVENTS = "/v1/recommendations", "/v1/events"
_TYPES = ("click", "cart", "purchase")
_TYPE_SHARES = (85, 10, 5)
_SENT = 50
"""Items of a history that comes with its request."""


@dataclass(frozen=True, slots=True)
class Mix:
    """What there is how much of.

    events:  share of requests that are events, where anything is written
    filters: share of recommendations with a filter
    cold:    share of sessions whose user nobody has heard of
    session: requests of a session, on average
    think_s: time between two of them, on average
    k:       items of an answer
    stored:  histories are the service's, and grow by events; else each request brings its own, and
             nothing is written
    """

    events: float = 0.3
    filters: float = 0.1
    cold: float = 0.05
    session: float = 6.0
    think_s: float = 5.0
    k: int = 10
    stored: bool = True

    @property
    def next_is_event(self) -> float:
        """Of a request that is not the first of its session."""
        if not self.stored or self.session <= 1:
            return 0.0
        return min(1.0, self.events * self.session / (self.session - 1))


@dataclass(frozen=True, slots=True)
class Call:
    """One request: `path` is one of the two above."""

    path: str
    body: bytes


class Session:
    """What one user does from coming to going."""

    def __init__(
        self, traffic: "Traffic", user_id: str, history: Sequence[str], begun: bool
    ) -> None:
        self._traffic = traffic
        self._user_id = user_id
        self._history = list(history)
        self._shown: Sequence[str] = ()
        self._begun = begun
        self.over = False

    def next(self) -> Call:
        """The next request. It may be the last: then the session is over."""
        chance, mix = self._traffic.chance, self._traffic.mix
        event = self._begun and chance.random() < mix.next_is_event
        if self._begun and not mix.stored:
            self._history.append(self._picked())
        self._begun = True
        self.over = chance.random() * mix.session < 1
        return self._event() if event else self._recommendation()

    def shown(self, items: Sequence[str]) -> None:
        """These were in an answer, in order."""
        self._shown = items

    def _recommendation(self) -> Call:
        mix = self._traffic.mix
        asked: dict[str, Any] = {"user_id": self._user_id, "k": mix.k}
        if not mix.stored:
            asked["history"] = self._history[-_SENT:]
        if self._traffic.chance.random() < mix.filters and (wanted := self._traffic.filter()):
            asked["filter"] = wanted
        return Call(RECOMMENDATIONS, json.dumps(asked).encode())

    def _event(self) -> Call:
        chance = self._traffic.chance
        event = {
            "event_id": self._traffic.event_id(),
            "user_id": self._user_id,
            "item_id": self._picked(),
            "type": chance.choices(_TYPES, _TYPE_SHARES)[0],
            "timestamp": time.time(),
        }
        return Call(EVENTS, json.dumps({"events": [event]}).encode())

    def _picked(self) -> str:
        chance = self._traffic.chance
        if not self._shown:
            return self._traffic.users.pick(chance)
        weights = [1 / rank for rank in range(1, len(self._shown) + 1)]
        return chance.choices(self._shown, weights)[0]


class Traffic:
    """Sessions of the users of a crowd; the same for the same seed and the same answers.

    filters: per attribute the conditions that are asked for
    name:    of no other traffic that the service ever sees: new users and events are named by it
    """

    def __init__(
        self,
        users: Users,
        filters: Mapping[str, Sequence[Any]],
        mix: Mix,
        *,
        seed: int | str,
        name: str,
    ) -> None:
        self.users = users
        self.mix = mix
        self.chance = Random(seed)
        self._filters = filters
        self._name = name
        self._open: list[Session] = []
        self._newcomers = self._events = 0

    def session(self, *, under_way: bool = False) -> Session:
        """Somebody comes, or came earlier."""
        if self.chance.random() < self.mix.cold:
            self._newcomers += 1
            return Session(self, f"{self._name}-new-{self._newcomers}", (), under_way)
        user = self.users.come(self.chance)
        history = () if self.mix.stored else self.users.histories[user]
        return Session(self, self.users.ids[user], history, under_way)

    def call(self, rate: float) -> tuple[Session, Call]:
        """The next request where `rate` come a second, and whose it is."""
        wanted = max(1, round(rate * self.mix.think_s))
        place = self.chance.randrange(wanted)
        while len(self._open) > wanted:
            self._open.pop()
        if place >= len(self._open):
            place = len(self._open)
            # Somebody who is there already, more often than not after a first request.
            under_way = self.chance.random() * self.mix.session >= 1
            self._open.append(self.session(under_way=under_way))
        session = self._open[place]
        call = session.next()
        if session.over:
            self._open[place] = self.session()
        return session, call

    def filter(self) -> dict[str, Any] | None:
        """Conditions on one or two attributes; None where no attribute is known."""
        if not self._filters:
            return None
        count = min(self.chance.choice((1, 1, 2)), len(self._filters))
        names = self.chance.sample(sorted(self._filters), count)
        return {name: self.chance.choice(self._filters[name]) for name in names}

    def event_id(self) -> str:
        self._events += 1
        return f"{self._name}-{self._events}"
