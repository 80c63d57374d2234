"""Items by their words, and words for an item: the title tasks of the bundle in service. No HTTP.

A search has no history and no user: it asks for the SID of a title, with the same constrained beams
as a recommendation. Where the engine fails there is nothing to fall back to, so it says so.
"""

from dataclasses import dataclass
from time import perf_counter

from model_store.bundle import Bundle
from model_store.sid import Eligibility
from service.engine import Beam, Engine, Query
from service.title_prompts import LONGEST_TITLE, TitlePrompts


@dataclass(frozen=True, slots=True)
class Description:
    """A title that the model wrote; `complete` where it came to an end by itself."""

    text: str
    complete: bool
    ms: float


class Titles:
    """Both directions for one bundle and its engine; `beam_width` as that of recommendations."""

    def __init__(self, bundle: Bundle, engine: Engine, *, beam_width: int) -> None:
        self._engine = engine
        self._beam_width = beam_width
        self._sids = bundle.sids
        self._prompts = TitlePrompts(bundle)

    async def find(
        self, query: str, width: int, eligible: Eligibility | None, *, explain: bool = False
    ) -> list[Beam]:
        """The SIDs whose titles `query` may be, or be a part of, best first.

        Raises `NotTrained`, `InvalidInput` for a query that cannot be asked, and `EngineError`.
        """
        tokens = self._prompts.ask_sid(query)
        width = max(width, self._beam_width)
        return await self._engine.search(Query(tokens, width, eligible, explain=explain))

    async def describe(self, row: int) -> Description:
        """What the model writes for the title of a catalogue row, greedily.

        Raises `NotTrained` and `EngineError`.
        """
        began = perf_counter()
        tokens = await self._engine.generate(
            self._prompts.ask_title(self._sids[row]), LONGEST_TITLE
        )
        ms = round((perf_counter() - began) * 1000, 3)
        return Description(self._prompts.text(tokens), len(tokens) < LONGEST_TITLE, ms)
