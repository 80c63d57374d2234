"""Whether a new version may become the champion: a few comparisons, each with its numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from model_store.build.section import Section
from model_store.errors import BuildError
from model_store.versions import CHAMPION

Metrics = Mapping[str, Mapping[str, float]]


class Rule(Section):
    """The new model's `metric` is at least (1 + `margin`) times that of `against`: the champion,
    or a ranker measured beside the model, such as `co-occurrence`."""

    metric: str = "NDCG@10"
    against: str = CHAMPION
    margin: float = 0.0


class Publish(Section):
    """All rules must hold for the alias to move; the bundle is published in any case."""

    alias: str = CHAMPION
    rules: tuple[Rule, ...] = (Rule(),)


def judge(
    rules: Sequence[Rule], model: str, metrics: Metrics, champion: Metrics | None
) -> tuple[bool, list[str]]:
    """Whether every rule holds, and a line for each. `model` is the model's name among the
    metrics; without a champion there is nothing to compare with it, and that rule holds.

    Raises `BuildError` for a metric or a ranker that was not measured.
    """
    verdicts = [_judge(rule, model, metrics, champion) for rule in rules]
    return all(holds for holds, _ in verdicts), [line for _, line in verdicts]


def _judge(rule: Rule, model: str, metrics: Metrics, champion: Metrics | None) -> tuple[bool, str]:
    ours = _measured(metrics, model, rule.metric)
    if rule.against != CHAMPION:
        theirs = _measured(metrics, rule.against, rule.metric)
    elif champion is None:
        return True, f"{rule.metric} {ours:.4f}: there is no champion yet"
    elif model not in champion or rule.metric not in champion[model]:
        return False, f"{rule.metric} {ours:.4f}: the champion has no {rule.metric} of {model!r}"
    else:
        theirs = _measured(champion, model, rule.metric)
    needed = theirs * (1 + rule.margin)
    holds = ours >= needed
    sign = "≥" if holds else "<"
    margin = f" × {1 + rule.margin:g}" if rule.margin else ""
    digits = 4  # or as many as it takes to see a difference
    while digits < 16 and ours != needed and f"{ours:.{digits}f}" == f"{needed:.{digits}f}":
        digits += 1
    left, right = f"{ours:.{digits}f}", f"{needed:.{digits}f}"
    return holds, f"{rule.metric} {left} {sign} {right} ({rule.against}{margin})"


def _measured(metrics: Mapping[str, Any], ranker: str, metric: str) -> float:
    try:
        return float(metrics[ranker][metric])
    except KeyError:
        known = f"{', '.join(metrics)} by {', '.join(next(iter(metrics.values()), {}))}"
        raise BuildError(
            f"publish: {metric} of {ranker!r} was not measured, only {known}"
        ) from None
