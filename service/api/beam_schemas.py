"""The beam of a search, as answers show it."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from service.answer import Answer
from service.engine.trace import Fate


class PrefixShown(BaseModel):
    """A SID up to some level, and what became of it there."""

    model_config = ConfigDict(from_attributes=True)

    prefix: str = Field(description="the beginning of a SID; at the last level all of it")
    token: str | None = Field(
        description="added at this level; null where the SID was complete without, and goes on as"
        " it is"
    )
    parent: int | None = Field(
        description="the place of the prefix one token shorter among the `prefixes` of the level"
        " before; null at the first level"
    )
    log_probability: float = Field(description="of the token, given the parent")
    score: float = Field(description="the sum of this and all log-probabilities before it")
    fate: Fate = Field(
        description="kept in the beam; dropped, because others scored higher; or ineligible:"
        " no item under it may be shown, though it would have been kept had eligibility removed"
        " nothing"
    )
    eligible_items: int = Field(description="items that might have been shown under it")


class LevelOfBeam(BaseModel):
    """What a level of the search had to choose from, and what it chose."""

    model_config = ConfigDict(from_attributes=True)

    level: str = Field(description="its name: the SID's token without brackets and number")
    width: int = Field(description="prefixes that could be kept")
    considered: int = Field(
        description="prefixes that the catalogue had under those kept at the level before"
    )
    removed: int = Field(description="those of them under which no item may be shown")
    prefixes: list[PrefixShown] = Field(
        description="all that were kept, best first; then the best that were dropped; then those"
        " ineligible; at most `width` of each"
    )


BeamShown = Annotated[
    list[LevelOfBeam] | None,
    Field(
        description="the levels of the search, where the request said `trace` and the model has"
        " answered; else left out",
        exclude_if=lambda beam: beam is None,
    ),
]


def beam_shown(answer: Answer) -> list[LevelOfBeam] | None:
    if answer.beam is None:
        return None
    return [LevelOfBeam.model_validate(level) for level in answer.beam]
