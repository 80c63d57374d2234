"""One request's way from a user to a ranked list of items. No HTTP.

1. The scene is checked against those that the bundle knows.
2. The history comes from the request, else from Redis.
3. Item ids become catalogue rows; those that the bundle does not know are dropped and counted.
4. The prompt builder renders profile, scene and history within the model's length.
5. The engine searches, B = max(beam width, k), with the scene's adapter where there is one.
6. Beams become items: best SID first, within a SID in the catalogue's order, cut to k.
7. Where step 2 or 5 fails, or no history is left after 3, the answer is popular items of the
   scene, and says why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter
from typing import Literal

import structlog
from structlog.typing import FilteringBoundLogger

from model_store.bundle import Bundle
from service.engine import Beam, Engine, Query
from service.errors import EngineDead, EngineError, HistoryUnavailable, InvalidInput
from service.history import History
from service.prompt import PromptBuilder

Source = Literal["model", "popular"]
Reason = Literal["no_history", "history_unavailable", "engine_error", "engine_dead"]
Stored = Literal["hit", "miss", "unavailable"]

_log: FilteringBoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ask:
    """What is wanted. `history` are item ids, oldest first; None reads what is stored."""

    k: int
    user_id: str | None = None
    history: Sequence[str] | None = None
    profile: Mapping[str, str] = field(default_factory=dict)
    scene: str | None = None
    beam_width: int | None = None


@dataclass(frozen=True, slots=True)
class Pick:
    """An item, and its SID's score; popular items have none."""

    item_id: str
    title: str | None
    sid: str
    score: float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """Picks in order, and how they came about.

    reason:        why not the model, None where it answered
    stored:        what reading the stored history gave, None where it was not read
    history_used:  history items in the prompt of this answer
    unknown_items: history items that the bundle does not know
    timing_ms:     per stage that was reached, and `total`
    """

    picks: list[Pick]
    source: Source
    reason: Reason | None
    stored: Stored | None
    history_used: int
    unknown_items: int
    timing_ms: dict[str, float]


class Recommender:
    """Answers for one bundle and its engine. Making one reads the whole catalogue: not on a loop.

    `beam_width` is that of requests that name none.
    """

    def __init__(
        self, bundle: Bundle, engine: Engine, history: History, *, beam_width: int
    ) -> None:
        self._engine = engine
        self._history = history
        self._beam_width = beam_width
        self._prompt = PromptBuilder(bundle)
        self._catalogue = bundle.catalogue
        self._scenes = bundle.manifest.prompt.scenes
        self._adapters = bundle.adapters
        self._ids = bundle.catalogue.item_ids
        self._titles = bundle.catalogue.titles
        self._sids = bundle.sids
        self._row_of = bundle.catalogue.row_of
        for scene in (None, *self._scenes):
            self._catalogue.popular(scene)  # sorts once; no request shall wait for it

    async def warm_up(self) -> None:
        """One search, so that the first request finds everything in place. Raises EngineError."""
        [row] = self._catalogue.popular()[:1].tolist()
        tokens, _ = self._prompt.build([row])
        await self._engine.search(Query(tokens, self._beam_width))

    async def recommend(self, ask: Ask) -> Answer:
        """Raises InvalidInput for a scene that the bundle does not know, and for a profile that
        leaves no room in the prompt; any other trouble is answered with popular items."""
        scene = self._known_scene(ask.scene)
        run = _Run()
        reason: Reason | None = None
        try:
            beams = await self._search(ask, scene, run)
            picks = [self._pick(row, score) for row, score in best_items(beams, ask.k)]
        except (_NoHistory, HistoryUnavailable, EngineError) as error:
            reason = _reason(error)
            if reason != "no_history":
                _log.warning("fallback", reason=reason, error=str(error))
            rows: list[int] = self._catalogue.popular(scene)[: ask.k].tolist()
            picks = [self._pick(row, None) for row in rows]
        run.done("items")
        return Answer(
            picks=picks,
            source="model" if reason is None else "popular",
            reason=reason,
            stored=run.stored,
            history_used=run.used if reason is None else 0,
            unknown_items=run.unknown,
            timing_ms=run.timing_ms(),
        )

    async def _search(self, ask: Ask, scene: str | None, run: "_Run") -> list[Beam]:
        item_ids = await self._item_ids(ask, run)
        rows = [row for item_id in item_ids if (row := self._row_of.get(item_id)) is not None]
        run.unknown = len(item_ids) - len(rows)
        run.done("history")
        if not rows:
            raise _NoHistory
        tokens, run.used = self._prompt.build(rows, ask.profile, scene)
        run.done("prompt")
        try:
            width = max(ask.beam_width or self._beam_width, ask.k)
            adapter = scene if scene in self._adapters else None
            return await self._engine.search(Query(tokens, width, adapter=adapter))
        finally:
            run.done("search")

    async def _item_ids(self, ask: Ask, run: "_Run") -> Sequence[str]:
        if ask.history is not None:
            return ask.history
        if ask.user_id is None:
            return []
        run.stored = "unavailable"
        try:
            events = (await self._history.read(ask.user_id)).events
        except HistoryUnavailable:
            run.done("history")
            raise
        run.stored = "hit" if events else "miss"
        return [event.item_id for event in events]

    def _pick(self, row: int, score: float | None) -> Pick:
        return Pick(self._ids[row], self._titles[row], self._sids[row], score)

    def _known_scene(self, scene: str | None) -> str | None:
        if not self._scenes:
            return None
        if scene is not None and scene not in self._scenes:
            raise InvalidInput("scene", f"must be one of: {', '.join(self._scenes)}")
        return scene


def best_items(beams: Sequence[Beam], k: int) -> list[tuple[int, float]]:
    """The first `k` catalogue rows of the beams, with the score of their SID.

    The catalogue already has the items of one SID in the order in which they are to be shown.
    """
    return list(islice(((row, beam.score) for beam in beams for row in beam.rows), k))


class _NoHistory(Exception):
    """Nothing is left to build a prompt from."""


class _Run:
    """What is known so far of one request, and how long its stages took."""

    def __init__(self) -> None:
        self.stored: Stored | None = None
        self.unknown = 0
        self.used = 0
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
        case _:
            return "no_history"
