"""What may change once users have been divided, which two experiments cannot run at once, and what
the loaded models can do for one."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from math import isclose

from service.errors import Conflict, InvalidInput
from service.experiments.definition import Arm, ArmSettings, Design, Experiment
from service.holder import InService


def check_change(before: Experiment, after: Experiment, now: datetime) -> None:
    """What may still change once users have been divided: the end, the description, and shares
    that grow in proportion, so that nobody moves. Raises `Conflict`."""
    if before.status_at(now) == "scheduled":
        return
    free = {"description", "end", "arms", "forced"}
    for field in Design.model_fields.keys() - free:
        if getattr(before, field) != getattr(after, field):
            raise Conflict(field, "cannot change once the experiment has started")
    grown = after.arms[0].share / before.arms[0].share
    for i, (old, new) in enumerate(_pairs(before, after)):
        if old.model_copy(update={"share": 0}) != new.model_copy(update={"share": 0}):
            raise Conflict(f"arms.{i}", "cannot change once the experiment has started")
        if grown < 1 - 1e-9 or not isclose(new.share, old.share * grown, rel_tol=1e-6):
            reason = "can only grow, and in proportion with the others: else users would move"
            raise Conflict(f"arms.{i}.share", reason)


def _pairs(before: Experiment, after: Experiment) -> Iterator[tuple[Arm, Arm]]:
    if len(before.arms) != len(after.arms):
        raise Conflict("arms", "cannot become more or fewer once the experiment has started")
    return zip(before.arms, after.arms, strict=True)


def check_beside(new: Experiment, others: Iterable[Experiment]) -> None:
    """Two experiments may share users, for their salts divide them independently, but not change
    the same thing in the same request. Raises `Conflict`."""
    for other in others:
        if other.name == new.name or not (_same_scene(new, other) and _same_time(new, other)):
            continue
        for field, thing in _changed(new):
            if thing in {changed for _, changed in _changed(other)}:
                where = "" if other.scene is None else f" in the scene {other.scene}"
                raise Conflict(field, f"experiment {other.name} changes the {thing}{where} too")


def _changed(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """What its arms change, and where the definition says so."""
    for i, arm in enumerate(experiment.arms):
        if arm.bundle is not None:
            yield f"arms.{i}.bundle", "bundle"
        for name in ArmSettings.model_fields:
            if getattr(arm.settings, name) is not None:
                yield f"arms.{i}.settings.{name}", name


def _same_scene(one: Experiment, other: Experiment) -> bool:
    return one.scene is None or other.scene is None or one.scene == other.scene


def _same_time(one: Experiment, other: Experiment) -> bool:
    def before(first: Experiment, second: Experiment) -> bool:
        return first.end is not None and first.end <= second.start

    return not before(one, other) and not before(other, one)


async def check_models(experiment: Experiment, models: Sequence[InService]) -> None:
    """Whether every arm can be served by the loaded models, the active one first. Raises
    `InvalidInput`."""
    for i, arm in enumerate(experiment.arms):
        model = _model(arm, models)
        if model is None:
            there = ", ".join(str(one.version) for one in models)
            raise InvalidInput(f"arms.{i}.bundle", f"is not loaded here; loaded are: {there}")
        scenes = model.bundle.manifest.prompt.scenes
        if scenes and experiment.scene not in (None, *scenes):
            known = ", ".join(scenes)
            raise InvalidInput("scene", f"is none that {model.version} knows; it knows: {known}")
        field = f"arms.{i}.settings.filter"
        await model.catalogue.current.filters.eligible(arm.settings.filter, field)


def _model(arm: Arm, models: Sequence[InService]) -> InService | None:
    if arm.bundle is None:
        return models[0]
    wanted = (arm.bundle.name, arm.bundle.version)
    return next((one for one in models if one.version == wanted), None)
