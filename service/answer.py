"""What a recommendation is asked by, and what it is answered with. No HTTP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from service.beam import BeamLevel
from service.eligibility.filter import Filter
from service.eligibility.policy import Seen
from service.explain import LevelGain
from service.past import Stored
from service.sources import Reason, Source


@dataclass(frozen=True, slots=True)
class Ask:
    """What is wanted.

    history:      item ids, oldest first; None reads what is stored
    profile:      where it has a field, the stored profile's is not used
    deadline_ms:  milliseconds that the answer may take; None is the deployment's, 0 any
    exclude:      item ids that the answer must not contain; unknown ones do no harm
    exclude_seen: which items of the user's past it must not contain; None is the deployment's
    explain:      whether picks shall say what each level of their SID added to the score
    trace:        whether the answer shall say what stood in the beam at each level; such an answer
                  is never one that was kept, and is not kept
    filter:       what each item must satisfy, beside the deployment's rules
    caller:       who shares the engine with others; not who the items are for
    patient:      whether it joins the engine's queue however long that is: it is one of several
                  that were let in as one
    """

    k: int
    user_id: str | None = None
    history: Sequence[str] | None = None
    profile: Mapping[str, str] = field(default_factory=dict)
    scene: str | None = None
    beam_width: int | None = None
    deadline_ms: int | None = None
    exclude: Sequence[str] = ()
    exclude_seen: Seen | None = None
    explain: bool = False
    trace: bool = False
    filter: Filter | None = None
    caller: str = "anonymous"
    patient: bool = False


@dataclass(frozen=True, slots=True)
class Pick:
    """An item, its score (popular items have none), that of its SID by level where that was asked
    (what neighbours alone have found has none), and where it comes from."""

    item_id: str
    title: str | None
    sid: str
    score: float | None
    source: Source
    levels: tuple[LevelGain, ...] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Picks in order, and how they came about. There are min(k, eligible) of them, always.

    source:         where the first pick comes from
    reason:         why the source before that one did not answer, None where there is none
    stored:         what reading the stored history gave, None where it was not read
    history_used:   history items in the prompt of this answer
    unknown_items:  history items that the bundle does not know
    eligible_items: catalogue items that the answer could have contained
    seen_items:     catalogue items left out because the user has seen them; None where the stored
                    history was wanted for that and could not be read
    timing_ms:      per stage that was reached, and `total`
    cached:         whether it was computed for an earlier request
    beam:           the levels of the search where that was asked and the model has answered
    history_age_s:  seconds since the newest event of the stored history, where that was read
    """

    picks: list[Pick]
    source: Source
    reason: Reason | None
    stored: Stored | None
    history_used: int
    unknown_items: int
    eligible_items: int
    seen_items: int | None
    timing_ms: dict[str, float]
    cached: bool = False
    beam: tuple[BeamLevel, ...] | None = None
    history_age_s: float | None = None
