"""What the log line and the trace of a request say of its answer. No user ids."""

from collections import Counter
from collections.abc import Sequence

from structlog.contextvars import bind_contextvars

from service.api.answer_schemas import BundleName, Recommendations
from service.spans import annotate


def tell(bundle: BundleName, timing_ms: dict[str, float]) -> None:
    """Which version answered, and how long its stages took."""
    version = f"{bundle.name}/{bundle.version}"
    bind_contextvars(version=version, timing_ms=timing_ms)
    annotate(version=version)


def tell_recommendations(answer: Recommendations) -> None:
    """The same, where the items come from, and under which arms of experiments."""
    tell(answer.bundle, answer.timing_ms)
    if answer.experiments:
        bind_contextvars(arms={one.experiment: one.arm for one in answer.experiments})
    bind_contextvars(source=answer.source, reason=answer.reason, items=len(answer.items))
    annotate(source=answer.source, reason=answer.reason, items=len(answer.items))


def tell_batch(answers: Sequence[Recommendations], refused: int) -> None:
    """How many answers came from which source, for which reason, and how many there are not."""
    versions = {f"{answer.bundle.name}/{answer.bundle.version}" for answer in answers}
    version = ",".join(sorted(versions)) or None
    bind_contextvars(
        version=version,
        sources=Counter(answer.source for answer in answers),
        reasons=Counter(answer.reason for answer in answers if answer.reason is not None),
        refused=refused,
    )
    annotate(version=version, answers=len(answers), refused=refused)
