"""One request's way from a user to a ranked list of items. No HTTP.

1. The scene is checked against those that the bundle knows, the clock starts, and the catalogue as
   it is now is taken: the request stays with it to its end.
2. The history comes from the request, else from Redis, and with it the stored profile.
3. Item ids become SIDs; those that the bundle does not know are dropped and counted.
4. The deployment's rules, the request's filter and exclusions, and what the user has seen become
   an eligibility over rows.
5. The prompt builder renders profile, scene and history within the model's length.
6. The engine searches among what is eligible, B = max(beam width, k), with the scene's adapter
   where there is one, unless it would not be done by the deadline.
7. Beams become eligible items: best SID first, within a SID in the catalogue's order, cut to k;
   where the bundle blends, with the neighbours of the history mixed in.
8. What is missing, and that is all where 2 to 6 gave nothing, is filled from the next sources of
   the chain in `sources`, equally eligible; the answer says from which, and why.

Where answers are cached, that of a model to the same request in the same state ends it behind 2,
unless the request wants to see the beam.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import structlog
from structlog.typing import FilteringBoundLogger

from model_store.bundle import Bundle
from model_store.edition import Edition
from model_store.sid import Eligibility
from service.answer import Answer, Ask
from service.answer_cache import AnswerCache
from service.beam import drawn
from service.catalogue.snapshot import Snapshot
from service.deadline import Deadline, Pace
from service.eligibility.policy import Policy, Seen
from service.engine import Beam, Engine, Query
from service.engine_queue import EngineQueue
from service.errors import DeadlinePassed, EngineError, InvalidInput, Overloaded
from service.history import History
from service.past import Past
from service.popularity import Popularity
from service.profiles import Profiles, says_something
from service.prompt import PromptBuilder
from service.ranking import Ranking, best_items
from service.reasons import NoHistory, NothingEligible, reason_of
from service.run import Run
from service.showing import as_shown
from service.sources import Picks, Reason, Source, popular_rows

_log: FilteringBoundLogger = structlog.get_logger(__name__)


class Recommender:
    """Answers for one bundle and its engine. Making one reads the whole catalogue: not on a loop.

    `beam_width` and `deadline_ms` (0: none) are those of requests that name none; `policy` what no
    answer may contain; `popularity` what is clicked now, beside what the catalogue knows; `cache`
    where answers are kept for a while, if they are; `catalogue` what is there when a request
    begins, by default what the bundle has; `queue` those who search, whichever recommender they
    ask. Raises InvalidInput, naming a part of the policy's rules, where the catalogue lacks what
    they are about.
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
        cache: AnswerCache[Answer] | None = None,
        catalogue: Callable[[], Snapshot] | None = None,
        queue: EngineQueue | None = None,
    ) -> None:
        self._engine = engine
        self._history = history
        self._beam_width = beam_width
        self._policy = policy or Policy()
        self._popularity = popularity
        self._deadline_ms = deadline_ms
        self._cache = cache
        self._pace = Pace()
        self._queue = queue or EngineQueue()
        self._prompt = PromptBuilder(bundle)
        self._ranking = Ranking(bundle)
        self.profiles = Profiles(bundle)
        self._template = bundle.manifest.prompt
        self._spec = bundle.spec
        self._cold = bundle.cold
        if catalogue is None:
            first = Snapshot.first(bundle, engine, self._policy)
            self._now: Callable[[], Snapshot] = lambda: first
        else:
            self._now = catalogue
        self._scenes = bundle.manifest.prompt.scenes
        self._adapters = bundle.adapters

    async def recommend(self, ask: Ask) -> Answer:
        """Raises InvalidInput for a scene that the bundle does not know, a filter over attributes
        that the catalogue lacks, and a profile that leaves no room in the prompt or brings
        tokens of the model into it, and Overloaded where the engine's queue is full and there is
        no deadline; any other trouble is answered with popular items."""
        scene = self._known_scene(ask.scene)
        self.profiles.check(ask.profile)
        deadline = Deadline(self._deadline_ms if ask.deadline_ms is None else ask.deadline_ms)
        which = ask.exclude_seen or self._policy.exclude_seen
        run, now = Run(traced=ask.trace), self._now()
        with run.stage("history"):
            past = await Past.read(
                self._history,
                ask.user_id,
                ask.history,
                needed=which != "nothing" or "{profile}" in self._template.text,
                deadline=deadline,
            )
        if self._cache is None or past.error is not None or ask.trace:
            return await self._answer(ask, scene, which, past, now, deadline, run)
        unnamed = replace(
            ask, user_id=None, history=None, deadline_ms=None, caller="", patient=False
        )
        whose = ask.user_id if past.remembered else None
        key = self._cache.key(now.version, unnamed, past, user_id=whose)
        with run.stage("cache"):
            kept = await self._cache.get(key)
        if kept is not None:
            return replace(
                kept,
                stored=past.stored,
                timing_ms=run.timing_ms(),
                cached=True,
                history_age_s=past.age_s,
            )
        answer = await self._answer(ask, scene, which, past, now, deadline, run)
        # Popular items change without the state that a key knows.
        if answer.picks and all(pick.score is not None for pick in answer.picks):
            await self._cache.put(key, answer)
        return answer

    async def find(self, ask: Ask, tokens: Sequence[int]) -> Answer:
        """The best eligible items behind a prompt that speaks of no user.

        Raises InvalidInput for a filter over attributes that the catalogue lacks, EngineError and
        Overloaded: there is nothing to fall back to.
        """
        run, now = Run(traced=ask.trace), self._now()
        with run.stage("eligibility"):
            allowed = await now.eligible(ask.filter)
            eligible = self._eligible(ask, "nothing", allowed, Past(None), now.catalogue, run)
        beams: list[Beam] = []
        with run.stage("search"):
            if run.eligible:
                query = self._query(ask, tokens, eligible, now, run)
                self._queue.check(ask.caller)
                with self._queue.search(ask.caller):
                    beams = await self._engine.search(query)
        with run.stage("items"):
            picks = Picks(ask.k, eligible)
            picks.scored("model", best_items(beams, ask.k, eligible))
            shown = as_shown(picks, beams, now, self._spec, eligible, ask.explain)
            beam = drawn(run.trace, self._spec) if beams else None
        return Answer(
            picks=shown,
            source="model",
            reason=None if run.eligible else "nothing_eligible",
            stored=None,
            history_used=0,
            unknown_items=0,
            eligible_items=run.eligible,
            seen_items=0,
            timing_ms=run.timing_ms(),
            beam=beam,
        )

    async def _answer(
        self,
        ask: Ask,
        scene: str | None,
        which: Seen,
        past: Past,
        now: Snapshot,
        deadline: Deadline,
        run: Run,
    ) -> Answer:
        with run.stage("eligibility"):
            allowed = await now.eligible(ask.filter)
            eligible = self._eligible(ask, which, allowed, past, now.catalogue, run)
        picks, beams = Picks(ask.k, eligible), list[Beam]()
        reason: Reason | None = reason_of(past.error) if past.lost else None
        try:
            source, beams = await self._search(ask, scene, past, eligible, now, deadline, run)
            best = self._ranking.items(beams, past.item_ids, ask.k, eligible, now.catalogue)
            picks.scored(source, best)
            if source != "model":
                reason = reason or "no_history"
        except (NoHistory, NothingEligible, EngineError) as error:
            if reason is None or not isinstance(error, NoHistory):
                reason = reason_of(error)
            if isinstance(error, EngineError):
                _log.warning("fallback", reason=reason, error=str(error))
        except Overloaded as error:
            if deadline.at is None:
                raise
            reason = reason_of(error)
        with run.stage("items"):
            for source, rows in popular_rows(now.catalogue, self._popularity, scene):
                if not picks.full:
                    picks.ranked(source, rows)
            shown = as_shown(picks, beams, now, self._spec, eligible, ask.explain)
            beam = drawn(run.trace, self._spec) if beams else None
        return Answer(
            picks=shown,
            source=picks.source,
            reason=reason,
            stored=past.stored,
            history_used=run.used if picks.source == "model" else 0,
            unknown_items=run.unknown,
            eligible_items=run.eligible,
            seen_items=run.seen,
            timing_ms=run.timing_ms(),
            history_age_s=past.age_s,
            beam=beam,
        )

    def _eligible(
        self,
        ask: Ask,
        which: Seen,
        allowed: Eligibility | None,
        past: Past,
        catalogue: Edition,
        run: Run,
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
        deadline: Deadline,
        run: Run,
    ) -> tuple[Source, list[Beam]]:
        """Asks the model by all that is known, and says by what that was."""
        profile = self.profiles.merged(past.profile, ask.profile)
        codes = now.catalogue.codes_of(past.item_ids)
        run.unknown = len(past.item_ids) - len(codes)
        if not len(codes) and not (self._cold and says_something(profile, scene, self._template)):
            raise NoHistory
        if run.eligible == 0:
            raise NothingEligible
        if not self._pace.fits(deadline):
            raise DeadlinePassed("a search takes longer at present than is left")
        if not ask.patient:
            self._queue.check(ask.caller)
        with run.stage("prompt"):
            tokens, run.used = self._prompt.build_from(codes, profile, scene)
        query = replace(
            self._query(ask, tokens, eligible, now, run),
            adapter=scene if scene in self._adapters else None,
            deadline=deadline.at,
        )
        with run.stage("search"), self._pace.measured(), self._queue.search(ask.caller):
            beams = await deadline.wait(self._engine.search(query))
        return "model" if len(codes) else "profile", beams

    def _query(
        self, ask: Ask, tokens: Sequence[int], eligible: Eligibility | None, now: Snapshot, run: Run
    ) -> Query:
        width = max(ask.beam_width or self._beam_width, ask.k)
        return Query(
            tokens, width, eligible, trie=now.searched, explain=ask.explain, trace=run.trace
        )

    def _known_scene(self, scene: str | None) -> str | None:
        if not self._scenes:
            return None
        if scene is not None and scene not in self._scenes:
            raise InvalidInput("scene", f"must be one of: {', '.join(self._scenes)}")
        return scene


def _rows(catalogue: Edition, item_ids: Iterable[str]) -> list[int]:
    """The rows of those that are there, in their order."""
    return [row for item_id in item_ids if (row := catalogue.row_of.get(item_id)) is not None]
