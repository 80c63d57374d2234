"""One request's way from a user to a ranked list of items. No HTTP.

1. The scene is checked against those that the bundle knows.
2. The history comes from the request, else from Redis.
3. Item ids become catalogue rows; those that the bundle does not know are dropped and counted.
4. The deployment's rules, the request's filter and exclusions, and what the user has seen become
   an eligibility over rows.
5. The prompt builder renders profile, scene and history within the model's length.
6. The engine searches among what is eligible, B = max(beam width, k), with the scene's adapter
   where there is one.
7. Beams become eligible items: best SID first, within a SID in the catalogue's order, cut to k.
8. Where step 2 or 6 fails, or no history is left after 3, the answer is popular items of the
   scene, equally eligible, and says why.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter
from typing import Literal

import structlog
from structlog.typing import FilteringBoundLogger

from model_store.bundle import Bundle
from model_store.sid import Eligibility
from service.eligibility.filter import Filter
from service.eligibility.filters import Filters
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

    `beam_width` is that of requests that name none; `policy` what no answer may contain. Raises
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
    ) -> None:
        self._engine = engine
        self._history = history
        self._beam_width = beam_width
        self._policy = policy or Policy()
        self._prompt = PromptBuilder(bundle)
        self._catalogue = bundle.catalogue
        self._scenes = bundle.manifest.prompt.scenes
        self._adapters = bundle.adapters
        self._ids = bundle.catalogue.item_ids
        self._titles = bundle.catalogue.titles
        self._sids = bundle.sids
        self._filters = Filters(
            bundle.catalogue, self._policy.rules, cache_bytes=self._policy.cache_bytes
        )
        self._filters.prepare()
        self._row_of = bundle.catalogue.row_of
        for scene in (None, *self._scenes):
            self._catalogue.popular(scene)  # sorts once; no request shall wait for it

    async def warm_up(self) -> None:
        """One search, so that the first request finds everything in place. Raises EngineError."""
        [row] = self._catalogue.popular()[:1].tolist()
        tokens, _ = self._prompt.build([row])
        await self._engine.search(Query(tokens, self._beam_width))

    async def recommend(self, ask: Ask) -> Answer:
        """Raises InvalidInput for a scene that the bundle does not know, a filter over attributes
        that the catalogue lacks, and a profile that leaves no room in the prompt; any other
        trouble is answered with popular items."""
        scene = self._known_scene(ask.scene)
        which = ask.exclude_seen or self._policy.exclude_seen
        run = _Run()
        past = await Past.read(self._history, ask.user_id, ask.history, which)
        run.done("history")
        allowed = await self._filters.eligible(ask.filter)
        eligible = self._eligible(ask, which, allowed, past, run)
        run.done("eligibility")
        reason: Reason | None = None
        try:
            beams = await self._search(ask, scene, past, eligible, run)
            picks = [self._pick(row, score) for row, score in best_items(beams, ask.k, eligible)]
        except (_NoHistory, _NothingEligible, HistoryUnavailable, EngineError) as error:
            reason = _reason(error)
            if reason not in ("no_history", "nothing_eligible"):
                _log.warning("fallback", reason=reason, error=str(error))
            picks = [self._pick(row, None) for row in self._popular(scene, ask.k, eligible)]
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
        self, ask: Ask, which: Seen, allowed: Eligibility | None, past: Past, run: "_Run"
    ) -> Eligibility | None:
        """What the answer may contain: what is `allowed`, less exclusions; None for everything."""
        seen = self._rows(past.seen(which, self._policy.purchase_types))
        run.seen = None if past.error is not None and which != "nothing" else len(seen)
        excluded = [*seen, *self._rows(ask.exclude)]
        eligible = (allowed or Eligibility.of()).without(excluded) if excluded else allowed
        n_items = len(self._catalogue)
        run.eligible = n_items if eligible is None else eligible.total(n_items)
        return eligible

    async def _search(
        self,
        ask: Ask,
        scene: str | None,
        past: Past,
        eligible: Eligibility | None,
        run: "_Run",
    ) -> list[Beam]:
        item_ids = past.item_ids()
        rows = self._rows(item_ids)
        run.unknown = len(item_ids) - len(rows)
        if not rows:
            raise _NoHistory
        if run.eligible == 0:
            raise _NothingEligible
        tokens, run.used = self._prompt.build(rows, ask.profile, scene)
        run.done("prompt")
        try:
            width = max(ask.beam_width or self._beam_width, ask.k)
            adapter = scene if scene in self._adapters else None
            return await self._engine.search(Query(tokens, width, eligible, adapter))
        finally:
            run.done("search")

    def _popular(self, scene: str | None, k: int, eligible: Eligibility | None) -> list[int]:
        rows = self._catalogue.popular(scene)
        found: list[int] = rows[:k].tolist() if eligible is None else eligible.among(rows, k)
        return found

    def _rows(self, item_ids: Iterable[str]) -> list[int]:
        """The rows of those that the bundle knows, in their order."""
        return [row for item_id in item_ids if (row := self._row_of.get(item_id)) is not None]

    def _pick(self, row: int, score: float | None) -> Pick:
        return Pick(self._ids[row], self._titles[row], self._sids[row], score)

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
