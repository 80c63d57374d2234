"""What came back: an entry for each request, as columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Why an answer may come from another source than the model although nothing is wrong.
_BY_NATURE = ("", "no_history", "nothing_eligible")


@dataclass(frozen=True, slots=True)
class Samples:
    """Columns (n,) in the order in which requests ended.

    due:     seconds after the beginning at which it had to be sent
    seconds: from then until it had ended
    late:    from then until it was sent
    event:   whether it was one; else a recommendation was asked for
    outcome: the status, or "timeout", "unreachable" or "broken" without one
    source, reason: of the answer; "" where it says none
    stages:  per stage the milliseconds that the answer says it took; nan where it says none
    bundles: that answered
    """

    due: Floats
    seconds: Floats
    late: Floats
    event: Mask
    outcome: npt.NDArray[np.str_]
    source: npt.NDArray[np.str_]
    reason: npt.NDArray[np.str_]
    stages: Mapping[str, Floats]
    bundles: frozenset[str]

    def __len__(self) -> int:
        return len(self.due)

    @property
    def answered(self) -> Mask:
        return np.asarray(self.outcome == "200")

    @property
    def fallen(self) -> Mask:
        """Answered by another source than the model because something was wrong."""
        return np.isin(self.reason, _BY_NATURE, invert=True)

    def where(self, mask: Mask) -> "Samples":
        return Samples(
            self.due[mask],
            self.seconds[mask],
            self.late[mask],
            self.event[mask],
            self.outcome[mask],
            self.source[mask],
            self.reason[mask],
            {name: column[mask] for name, column in self.stages.items()},
            self.bundles,
        )

    @classmethod
    def joined(cls, parts: Sequence["Samples"]) -> "Samples":
        def column(name: str) -> Any:
            return np.concatenate([getattr(part, name) for part in parts])

        def stage(part: Samples, name: str) -> Floats:
            return np.asarray(part.stages.get(name, np.full(len(part), np.nan)))

        names = dict.fromkeys(name for part in parts for name in part.stages)
        return cls(
            column("due"),
            column("seconds"),
            column("late"),
            column("event"),
            column("outcome"),
            column("source"),
            column("reason"),
            {name: np.concatenate([stage(part, name) for part in parts]) for name in names},
            frozenset().union(*(part.bundles for part in parts)),
        )


@dataclass(slots=True)
class Log:
    """Takes requests down as they end."""

    _times: list[tuple[float, float, float]] = field(default_factory=list)
    _kinds: list[tuple[str, str, str]] = field(default_factory=list)
    _events: list[bool] = field(default_factory=list)
    _stages: list[Mapping[str, float]] = field(default_factory=list)
    _bundles: set[str] = field(default_factory=set)

    def ended(
        self,
        due: float,
        seconds: float,
        late: float,
        event: bool,
        outcome: str,
        answer: Mapping[str, Any],
    ) -> None:
        """`answer`: the document that came, if it is one."""
        self._times.append((due, seconds, late))
        self._kinds.append((outcome, answer.get("source") or "", answer.get("reason") or ""))
        self._events.append(event)
        self._stages.append(answer.get("timing_ms") or {})
        if bundle := answer.get("bundle"):
            self._bundles.add(f"{bundle['name']}/{bundle['version']}")

    def samples(self) -> Samples:
        due, seconds, late = np.array(self._times, np.float64).reshape(-1, 3).T
        outcome, source, reason = np.array(self._kinds, np.str_).reshape(-1, 3).T
        event = np.array(self._events, bool)
        names = dict.fromkeys(name for stages in self._stages for name in stages)
        stages = {
            name: np.array([stages.get(name, np.nan) for stages in self._stages]) for name in names
        }
        bundles = frozenset(self._bundles)
        return Samples(due, seconds, late, event, outcome, source, reason, stages, bundles)
