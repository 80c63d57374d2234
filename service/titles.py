"""Items by their words, and words for an item: the title tasks of the bundle in service. No HTTP.

A search has no history and no user: it asks for the SID of a title, with the same constrained beams
as a recommendation. Where the engine fails there is nothing to fall back to, so it says so.
"""

from dataclasses import dataclass

from model_store.bundle import Bundle
from service.answer import Answer, Ask
from service.engine import Engine
from service.recommender import Recommender
from service.run import Run
from service.title_prompts import LONGEST_TITLE, Purpose, TitlePrompts


@dataclass(frozen=True, slots=True)
class Description:
    """A title that the model wrote; `complete` where it came to an end by itself."""

    text: str
    complete: bool
    timing_ms: dict[str, float]


class Titles:
    """Both directions for one bundle, its engine and its recommender."""

    def __init__(self, bundle: Bundle, engine: Engine, recommender: Recommender) -> None:
        self._engine = engine
        self._recommender = recommender
        self._prompts = TitlePrompts(bundle)

    def why_no(self, purpose: Purpose) -> str | None:
        """Why the bundle cannot do this; None where it can."""
        return self._prompts.why_no(purpose)

    async def search(self, query: str, ask: Ask) -> Answer:
        """The items whose titles `query` may be, or be a part of, best first.

        Of `ask` counts what restricts and shapes an answer, not what it knows of a user. Raises
        `NotTrained`, `InvalidInput` for a query that cannot be asked, and `EngineError`.
        """
        return await self._recommender.find(ask, self._prompts.ask_sid(query))

    async def describe(self, sid: str) -> Description:
        """What the model writes for the title of the items with this SID, greedily.

        Raises `NotTrained` and `EngineError`.
        """
        run = Run()
        with run.stage("prompt"):
            prompt = self._prompts.ask_title(sid)
        with run.stage("text"):
            tokens = await self._engine.generate(prompt, LONGEST_TITLE)
        complete = len(tokens) < LONGEST_TITLE
        return Description(self._prompts.text(tokens), complete, run.timing_ms())
