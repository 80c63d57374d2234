"""One request's way from a user to a ranked list of items. No HTTP.

1. The scene is checked against those that the bundle knows, and the clock starts.
2. The history comes from the request, else from Redis, and with it the stored profile.
3. Item ids become catalogue rows; those that the bundle does not know are dropped and counted.
4. The deployment's rules, the request's filter and exclusions, and what the user has seen become
   an eligibility over rows.
5. The prompt builder renders profile, scene and history within the model's length.
6. The engine searches among what is eligible, B = max(beam width, k), with the scene's adapter
   where there is one, unless it would not be done by the deadline.
7. Beams become eligible items: best SID first, within a SID in the catalogue's order, cut to k.
8. What is missing, and that is all where 2 to 6 gave nothing, is filled from the next sources of
   the chain in `sources`, equally eligible; the answer says from which, and why.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter

import structlog
from structlog.typing import FilteringBoundLogger

from model_store.bundle import Bundle
from model_store.sid import Eligibility
from service.deadline import Deadline, Pace
from service.eligibility.filter import Filter
from service.eligibility.filters import Filters
from service.eligibility.policy import Policy, Seen
from service.engine import Beam, Engine, Query
from service.errors import DeadlinePassed, EngineDead, EngineError, HistoryUnavailable, InvalidInput
from service.history import History
from service.past import Past, Stored
from service.popularity import Popularity
from service.profiles import merged, says_something
from service.prompt import PromptBuilder
from service.sources import Picks, Reason, Source, popular_rows

_log: FilteringBoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ask:
    """What is wanted.

    history:      item ids, oldest first; None reads what is stored
    profile:      where it has a field, the stored profile's is not used
    deadline_ms:  milliseconds that the answer may take; None is the deployment's, 0 any
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
    deadline_ms: int | None = None
    exclude: Sequence[str] = ()
    exclude_seen: Seen | None = None
    filter: Filter | None = None


@dataclass(frozen=True, slots=True)
class Pick:
    """An item, its SID's score (popular items have none), and where it comes from."""

    item_id: str
    title: str | None
    sid: str
    score: float | None
    source: Source


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

    `beam_width` and `deadline_ms` (0: none) are those of requests that name none; `policy` what no
    answer may contain; `popularity` what is clicked now, beside what the catalogue knows. Raises
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
        popularity: Popularity | None = None,
        deadline_ms: int = 0,
    ) -> None:
        self._engine = engine
        self._history = history
        self._beam_width = beam_width
        self._policy = policy or Policy()
        self._popularity = popularity
        self._deadline_ms = deadline_ms
        self._pace = Pace()
        self._prompt = PromptBuilder(bundle)
        self._template = bundle.manifest.prompt
        self._cold = bundle.cold
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
        if popularity is not None:
            popularity.watch(self._scenes)

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
        deadline = Deadline(self._deadline_ms if ask.deadline_ms is None else ask.deadline_ms)
        run = _Run()
        past = await self._past(ask, which, deadline)
        run.done("history")
        allowed = await self._filters.eligible(ask.filter)
        eligible = self._eligible(ask, which, allowed, past, run)
        run.done("eligibility")
        picks = Picks(min(ask.k, run.eligible), eligible)
        reason: Reason | None = _reason(past.error) if past.lost else None
        try:
            source, beams = await self._search(ask, scene, past, eligible, deadline, run)
            picks.scored(source, best_items(beams, ask.k, eligible))
            if source != "model":
                reason = reason or "no_history"
        except (_NoHistory, _NothingEligible, EngineError) as error:
            if reason is None or not isinstance(error, _NoHistory):
                reason = _reason(error)
            if isinstance(error, EngineError):
                _log.warning("fallback", reason=reason, error=str(error))
        further = popular_rows(self._catalogue, self._popularity, scene)
        while not picks.full and (ranking := next(further, None)):
            picks.ranked(*ranking)
        run.done("items")
        return Answer(
            picks=[self._pick(*pick) for pick in picks],
            source=picks.source,
            reason=reason,
            stored=past.stored,
            history_used=run.used if picks.source == "model" else 0,
            unknown_items=run.unknown,
            eligible_items=run.eligible,
            seen_items=run.seen,
            timing_ms=run.timing_ms(),
        )

    async def _past(self, ask: Ask, which: Seen, deadline: Deadline) -> Past:
        profiled = "{profile}" in self._template.text
        needed = ask.history is None or which != "nothing" or profiled
        past = await Past.read(
            self._history, ask.user_id if needed else None, ask.history, deadline
        )
        if past.error is not None:
            _log.warning("history_unread", error=str(past.error))
        return past

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
        deadline: Deadline,
        run: "_Run",
    ) -> tuple[Source, list[Beam]]:
        """Asks the model by all that is known, and says by what that was."""
        profile = merged(past.profile, ask.profile)
        item_ids = past.item_ids()
        rows = self._rows(item_ids)
        run.unknown = len(item_ids) - len(rows)
        if not rows and not (self._cold and says_something(profile, scene, self._template)):
            raise _NoHistory
        if run.eligible == 0:
            raise _NothingEligible
        if not self._pace.fits(deadline):
            raise DeadlinePassed("a search takes longer at present than is left")
        tokens, run.used = self._prompt.build(rows, profile, scene)
        run.done("prompt")
        try:
            width = max(ask.beam_width or self._beam_width, ask.k)
            adapter = scene if scene in self._adapters else None
            query = Query(tokens, width, eligible, adapter, deadline.at)
            with self._pace.measured():
                beams = await deadline.wait(self._engine.search(query))
        finally:
            run.done("search")
        return "model" if rows else "profile", beams

    def _rows(self, item_ids: Iterable[str]) -> list[int]:
        """The rows of those that the bundle knows, in their order."""
        return [row for item_id in item_ids if (row := self._row_of.get(item_id)) is not None]

    def _pick(self, row: int, score: float | None, source: Source) -> Pick:
        return Pick(self._ids[row], self._titles[row], self._sids[row], score, source)

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


def _reason(error: Exception | None) -> Reason:
    match error:
        case HistoryUnavailable():
            return "history_unavailable"
        case DeadlinePassed():
            return "deadline"
        case EngineDead():
            return "engine_dead"
        case EngineError():
            return "engine_error"
        case _NothingEligible():
            return "nothing_eligible"
        case _:
            return "no_history"
