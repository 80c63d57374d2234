"""One request's way from a user to a ranked list of items. No HTTP.

1. The scene is checked against those that the bundle knows.
2. The history comes from the request, else from Redis.
3. The catalogue is the one of this moment, to the end of the request. Item ids become its SIDs
   and rows; those that it never knew are dropped and counted.
4. The deployment's rules, the request's filter and exclusions, and what the user has seen become
   an eligibility over rows.
5. The prompt builder renders profile, scene and history within the model's length.
6. The engine searches among what is eligible, B = max(beam width, k), with the scene's adapter
   where there is one.
7. Beams become eligible items: best SID first, within a SID in the catalogue's order, cut to k.
8. Where step 2 or 6 fails, or no history is left after 3, the answer is popular items of the
   scene, equally eligible, and says why.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter
from typing import Literal

import structlog
from structlog.typing import FilteringBoundLogger

from model_store.bundle import Bundle
from model_store.edition import Edition
from model_store.sid import Eligibility
from service.catalogue.snapshot import Snapshot
from service.eligibility.filter import Filter
from service.eligibility.policy import Policy, Seen
from service.engine import Beam, Engine, Query
from service.errors import EngineDead, EngineError, HistoryUnavailable, InvalidInput
from service.history import History
from service.past import Past, Stored
from service.prompt import PromptBuilder

Source = Literal["model", "popular"]
Reason = Literal[
    "no_history", "nothing_eligible", "history_unavailable", "engine_error", "engine_dead"
]

_log: FilteringBoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ask:
    """What is wanted.

    history:      item ids, oldest first; None reads what is stored
    exclude:      item ids that the answer must not contain; unknown ones do no harm
    exclude_seen: which items of the user's past it must not contain; None is the deployment's
    filter:       what each item must satisfy, beside the deployment's rules
    """

    k: int
    user_id: str | None = None
    history: Sequence[str] | None = None
    profile: Mapping[str, str] = field(default_factory=dict)
    scene: str | None = None
    beam_width: int | None = None
    exclude: Sequence[str] = ()
    exclude_seen: Seen | None = None
    filter: Filter | None = None


@dataclass(frozen=True, slots=True)
class Pick:
    """An item, and its SID's score; popular items have none."""

    item_id: str
    title: str | None
    sid: str
    score: float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """Picks in order, and how they came about. There are min(k, eligible) of them, always.

    reason:         why not the model, None where it answered
    stored:         what reading the stored history gave, None where it was not read
    history_used:   history items in the prompt of this answer
    unknown_items:  history items that the bundle does not know
    eligible_items: catalogue items that the answer could have contained
    seen_items:     catalogue items left out because the user has seen them; None where the stored
                    history was wanted for that and could not be read
    timing_ms:      per stage that was reached, and `total`
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


class Recommender:
    """Answers for one bundle and its engine. Making one reads the whole catalogue: not on a loop.

    `beam_width` is that of requests that name none; `policy` what no answer may contain;
    `catalogue` what is there when a request begins, by default what the bundle has. Raises
    InvalidInput, naming a part of `rules`, where the catalogue lacks what they are about.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        history: History,
        *,
        beam_width: int,
        policy: Policy | None = None,
        catalogue: Callable[[], Snapshot] | None = None,
    ) -> None:
        self._engine = engine
        self._history = history
        self._beam_width = beam_width
        self._policy = policy or Policy()
        self._prompt = PromptBuilder(bundle)
        if catalogue is None:
            first = Snapshot.first(bundle, engine, self._policy)
            self._now: Callable[[], Snapshot] = lambda: first
        else:
            self._now = catalogue
        self._scenes = bundle.manifest.prompt.scenes
        self._adapters = bundle.adapters

    async def warm_up(self) -> None:
        """One search, so that the first request finds everything in place. Raises EngineError."""
        now = self._now()
        tokens, _ = self._prompt.build_from(now.catalogue.codes[:1])
        await self._engine.search(Query(tokens, self._beam_width, trie=now.searched))

    async def recommend(self, ask: Ask) -> Answer:
        """Raises InvalidInput for a scene that the bundle does not know, a filter over attributes
        that the catalogue lacks, and a profile that leaves no room in the prompt; any other
        trouble is answered with popular items."""
        scene = self._known_scene(ask.scene)
        which = ask.exclude_seen or self._policy.exclude_seen
        run, now = _Run(), self._now()
        catalogue = now.catalogue
        past = await Past.read(self._history, ask.user_id, ask.history, which)
        run.done("history")
        allowed = await now.eligible(ask.filter)
        eligible = self._eligible(ask, which, allowed, past, catalogue, run)
        run.done("eligibility")
        reason: Reason | None = None
        try:
            beams = await self._search(ask, scene, past, eligible, now, run)
            picks = [
                _pick(catalogue, row, score) for row, score in best_items(beams, ask.k, eligible)
            ]
        except (_NoHistory, _NothingEligible, HistoryUnavailable, EngineError) as error:
            reason = _reason(error)
            if reason not in ("no_history", "nothing_eligible"):
                _log.warning("fallback", reason=reason, error=str(error))
            rows = _popular(catalogue, scene, ask.k, eligible)
            picks = [_pick(catalogue, row, None) for row in rows]
        run.done("items")
        return Answer(
            picks=picks,
            source="model" if reason is None else "popular",
            reason=reason,
            stored=past.stored,
            history_used=run.used if reason is None else 0,
            unknown_items=run.unknown,
            eligible_items=run.eligible,
            seen_items=run.seen,
            timing_ms=run.timing_ms(),
        )

    def _eligible(
        self,
        ask: Ask,
        which: Seen,
        allowed: Eligibility | None,
        past: Past,
        catalogue: Edition,
        run: "_Run",
    ) -> Eligibility | None:
        """What the answer may contain: what is `allowed`, less exclusions; None for everything."""
        seen = _rows(catalogue, past.seen(which, self._policy.purchase_types))
        run.seen = None if past.error is not None and which != "nothing" else len(seen)
        excluded = [*seen, *_rows(catalogue, ask.exclude)]
        eligible = (allowed or Eligibility.of()).without(excluded) if excluded else allowed
        n_items = len(catalogue)
        run.eligible = n_items if eligible is None else eligible.total(n_items)
        return eligible

    async def _search(
        self,
        ask: Ask,
        scene: str | None,
        past: Past,
        eligible: Eligibility | None,
        now: Snapshot,
        run: "_Run",
    ) -> list[Beam]:
        item_ids = past.item_ids()
        codes = now.catalogue.codes_of(item_ids)
        run.unknown = len(item_ids) - len(codes)
        if not len(codes):
            raise _NoHistory
        if run.eligible == 0:
            raise _NothingEligible
        tokens, run.used = self._prompt.build_from(codes, ask.profile, scene)
        run.done("prompt")
        try:
            width = max(ask.beam_width or self._beam_width, ask.k)
            adapter = scene if scene in self._adapters else None
            query = Query(tokens, width, eligible, adapter, now.searched)
            return await self._engine.search(query)
        finally:
            run.done("search")

    def _known_scene(self, scene: str | None) -> str | None:
        if not self._scenes:
            return None
        if scene is not None and scene not in self._scenes:
            raise InvalidInput("scene", f"must be one of: {', '.join(self._scenes)}")
        return scene


def best_items(
    beams: Sequence[Beam], k: int, eligible: Eligibility | None = None
) -> list[tuple[int, float]]:
    """The first `k` catalogue rows of the beams that are eligible, with the score of their SID.

    The catalogue already has the items of one SID in the order in which they are to be shown.
    """

    def rows(beam: Beam) -> Iterable[int]:
        # The only item of a beam is eligible, or the search would not have found it.
        if eligible is None or len(beam.rows) == 1:
            return beam.rows
        return eligible.rows(beam.rows.start, beam.rows.stop)

    return list(islice(((row, beam.score) for beam in beams for row in rows(beam)), k))


def _popular(
    catalogue: Edition, scene: str | None, k: int, eligible: Eligibility | None
) -> list[int]:
    rows = catalogue.popular(scene)
    found: list[int] = rows[:k].tolist() if eligible is None else eligible.among(rows, k)
    return found


def _rows(catalogue: Edition, item_ids: Iterable[str]) -> list[int]:
    """The rows of those that are there, in their order."""
    return [row for item_id in item_ids if (row := catalogue.row_of.get(item_id)) is not None]


def _pick(catalogue: Edition, row: int, score: float | None) -> Pick:
    return Pick(catalogue.item_ids[row], catalogue.titles[row], catalogue.sids[row], score)


class _NoHistory(Exception):
    """Nothing is left to build a prompt from."""


class _NothingEligible(Exception):
    """There is no item that the answer may contain."""


class _Run:
    """What is known so far of one request, and how long its stages took."""

    def __init__(self) -> None:
        self.unknown = 0
        self.used = 0
        self.eligible = 0
        self.seen: int | None = 0
        self._start = self._last = perf_counter()
        self._ms: dict[str, float] = {}

    def done(self, stage: str) -> None:
        now = perf_counter()
        self._ms[stage] = round((now - self._last) * 1000, 3)
        self._last = now

    def timing_ms(self) -> dict[str, float]:
        return {**self._ms, "total": round((self._last - self._start) * 1000, 3)}


def _reason(error: Exception) -> Reason:
    match error:
        case HistoryUnavailable():
            return "history_unavailable"
        case EngineDead():
            return "engine_dead"
        case EngineError():
            return "engine_error"
        case _NothingEligible():
            return "nothing_eligible"
        case _:
            return "no_history"
