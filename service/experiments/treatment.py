"""What an arm changes in a request, and the answer under it."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from model_store.bundle import Bundle
from service.answer import Answer, Ask
from service.eligibility.filter import Filter
from service.errors import InvalidInput, ModelNotLoaded
from service.experiments.running import Membership
from service.holder import InService, Version

Skipped = Callable[[str, str], None]
"""Is told of an experiment, and why its arm was not given: not_loaded or refused."""


class Models(Protocol):
    """Where loaded versions are found."""

    def take(self, version: Version | None = None) -> AbstractContextManager[InService]:
        """One that stays loaded until the block ends. Raises `ModelNotLoaded`."""


@dataclass(frozen=True, slots=True)
class Treated:
    """An answer, the bundle that gave it, and the arms under which it came about."""

    answer: Answer
    bundle: Bundle
    arms: Sequence[Membership] = ()


async def recommend_under(
    members: Sequence[Membership], ask: Ask, active: InService, models: Models, skipped: Skipped
) -> Treated:
    """The answer of the arms of a request, by the model that they name, else by the active one.

    An experiment never takes an answer away: where an arm's version is not loaded here, or its
    settings cannot be followed, the request is answered as outside of the experiment, and `skipped`
    is told. Raises what the request itself is to blame for.
    """
    for member in members:
        if member.arm.bundle is None:
            continue
        try:
            with models.take(Version(member.arm.bundle.name, member.arm.bundle.version)) as model:
                return await _treated(members, ask, model, active, skipped)
        except ModelNotLoaded:
            skipped(member.experiment.name, "not_loaded")
            others = [other for other in members if other is not member]
            return await _treated(others, ask, active, active, skipped)
    return await _treated(members, ask, active, active, skipped)


async def _treated(
    members: Sequence[Membership], ask: Ask, model: InService, active: InService, skipped: Skipped
) -> Treated:
    if members:
        try:
            answer = await model.recommender.recommend(changed(ask, members))
            return Treated(answer, model.bundle, members)
        except InvalidInput:
            # Perhaps the request's own fault: then it is raised again below.
            answer = await active.recommender.recommend(ask)
            for member in members:
                skipped(member.experiment.name, "refused")
            return Treated(answer, active.bundle)
    return Treated(await active.recommender.recommend(ask), active.bundle)


def changed(ask: Ask, members: Sequence[Membership]) -> Ask:
    """The request with the settings of its arms. They win over what it names: a client that always
    names a beam width would undo the experiment unnoticed. A filter holds beside its own."""
    for member in members:
        settings = member.arm.settings
        ask = replace(
            ask,
            beam_width=settings.beam_width or ask.beam_width,
            exclude_seen=settings.exclude_seen or ask.exclude_seen,
            filter=_both(ask.filter, settings.filter),
        )
    return ask


def _both(one: Filter | None, other: Filter | None) -> Filter | None:
    if one is None or other is None:
        return one or other
    # Not checked again: each is within the limits, and together they are one level deeper.
    return Filter.model_construct(_fields_set={"and_"}, and_=[one, other])
