"""Makes the report of an experiment from what was counted."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from service.experiments import statistics
from service.experiments.counters import SKETCH_ERROR, Outcome, Totals
from service.experiments.definition import Arm, Experiment
from service.experiments.report import (
    ArmReport,
    Difference,
    Guardrails,
    Planned,
    RateShown,
    Report,
    Verdict,
)

MISMATCH = 0.001
"""Below this the numbers of users do not fit the shares, and the rates cannot be trusted."""

_CONFIDENCE = 0.95


class _Counted:
    """An experiment and the totals of its arms."""

    def __init__(self, experiment: Experiment, totals: Mapping[str, Totals]) -> None:
        self.experiment = experiment
        self._totals = totals

    @property
    def exact(self) -> bool:
        return all(users.exact for of in self._totals.values() for users in of.users.values())

    @property
    def others(self) -> list[Arm]:
        return [arm for arm in self.experiment.arms if not arm.control]

    def users(self, arm: Arm, outcome: Outcome) -> int:
        """An estimate may say that more have clicked than were there: no more than those."""
        users = self._totals[arm.name].users
        return min(users[outcome].count, users["exposed"].count)

    def rate(self, arm: Arm, outcome: Outcome) -> RateShown:
        count = self.users(arm, outcome)
        rate = statistics.rate(count, self.users(arm, "exposed"), _CONFIDENCE)
        if rate is None:
            return RateShown(users=count, value=None, low=None, high=None)
        return RateShown(users=count, value=rate.value, low=rate.low, high=rate.high)

    def same_ratio(self) -> float | None:
        arms = self.experiment.arms
        counts = [self.users(arm, "exposed") for arm in arms]
        return statistics.same_ratio(counts, [arm.share for arm in arms])

    def differences(self, outcome: Outcome) -> dict[str, Difference]:
        """By arm; those with anybody in them."""
        control = self.experiment.control
        compared = {
            arm.name: statistics.compare(
                self.users(arm, outcome),
                self.users(arm, "exposed"),
                self.users(control, outcome),
                self.users(control, "exposed"),
                _CONFIDENCE,
            )
            for arm in self.others
        }
        found = {name: one for name, one in compared.items() if one is not None}
        adjusted = statistics.holm([one.p_value for one in found.values()])
        alpha = self.experiment.plan.alpha
        return {
            name: _difference(one, p_value, alpha)
            for (name, one), p_value in zip(found.items(), adjusted, strict=True)
        }

    def guardrails(self, arm: Arm) -> Guardrails:
        totals = self._totals[arm.name]
        answers = totals.counts.get("answers", 0)

        def share(name: str) -> float | None:
            return totals.counts.get(name, 0) / answers if answers else None

        return Guardrails(
            answers=answers,
            p50_ms=totals.quantile_ms(0.5),
            p99_ms=totals.quantile_ms(0.99),
            fallback_share=share("fallbacks"),
            empty_share=share("empty"),
        )


def make_report(
    experiment: Experiment, totals: Mapping[str, Totals], now: datetime, exact_users: int
) -> Report:
    """By the totals of each arm, whose users are counted exactly up to `exact_users`.

    Takes a second the first time: not on an event loop.
    """
    counted = _Counted(experiment, totals)
    clicks, purchases = counted.differences("clicked"), counted.differences("purchased")
    arms = [
        ArmReport(
            name=arm.name,
            control=arm.control,
            bundle=None if arm.bundle is None else f"{arm.bundle.name} {arm.bundle.version}",
            share=arm.share,
            exposed_users=counted.users(arm, "exposed"),
            clicking=counted.rate(arm, "clicked"),
            purchasing=counted.rate(arm, "purchased"),
            clicking_vs_control=clicks.get(arm.name),
            purchasing_vs_control=purchases.get(arm.name),
            guardrails=counted.guardrails(arm),
        )
        for arm in experiment.arms
    ]
    plan = _planned(counted)
    ratio = counted.same_ratio()
    return Report(
        experiment=experiment.name,
        description=experiment.description,
        status=experiment.status_at(now),
        scene=experiment.scene,
        start=experiment.start,
        end=experiment.end,
        generated=now.astimezone(UTC).replace(microsecond=0),
        exact=counted.exact,
        same_ratio_p_value=ratio,
        arms=arms,
        plan=plan,
        notes=list(_notes(None if counted.exact else exact_users, ratio, plan)),
    )


def _difference(one: statistics.Comparison, adjusted: float, alpha: float) -> Difference:
    verdict: Verdict = "no difference found"
    if adjusted <= alpha:
        verdict = "better" if one.difference.value > 0 else "worse"
    return Difference(
        value=one.difference.value,
        low=one.difference.low,
        high=one.difference.high,
        lift=one.lift,
        p_value=one.p_value,
        adjusted_p_value=adjusted,
        test=one.test,
        verdict=verdict,
    )


def _planned(counted: _Counted) -> Planned:
    plan, control = counted.experiment.plan, counted.experiment.control
    rate = plan.base_rate or counted.rate(control, "clicked").value
    base_rate = rate if rate and rate < 1 else None
    users = None if base_rate is None else _users_needed(counted, base_rate)
    found = None if base_rate is None else _lifts_found(counted, base_rate)
    reached = users is not None and all(
        counted.users(arm, "exposed") >= users[arm.name] for arm in counted.experiment.arms
    )
    return Planned(
        base_rate=base_rate,
        lift=plan.lift,
        alpha=plan.alpha,
        power=plan.power,
        users=users,
        reached=reached,
        lift_found=found,
    )


def _users_needed(counted: _Counted, base_rate: float) -> dict[str, int] | None:
    plan, control = counted.experiment.plan, counted.experiment.control
    users = {control.name: 0}
    for arm in counted.others:
        needed = statistics.users_needed(
            base_rate,
            plan.lift,
            alpha=_alpha(counted),
            power=plan.power,
            ratio=arm.share / control.share,
        )
        if needed is None:
            return None
        users[control.name] = max(users[control.name], needed[0])
        users[arm.name] = needed[1]
    return users


def _lifts_found(counted: _Counted, base_rate: float) -> dict[str, float] | None:
    control = counted.experiment.control
    lifts = {
        arm.name: statistics.lift_found(
            base_rate,
            counted.users(control, "exposed"),
            alpha=_alpha(counted),
            power=counted.experiment.plan.power,
            ratio=arm.share / control.share,
        )
        for arm in counted.others
    }
    return {name: lift for name, lift in lifts.items() if lift is not None} or None


def _alpha(counted: _Counted) -> float:
    """Of one comparison, by Bonferroni's bound: Holm's, which decides, asks for no less power."""
    return counted.experiment.plan.alpha / len(counted.others)


def _notes(exact_users: int | None, ratio: float | None, plan: Planned) -> Iterator[str]:
    if ratio is not None and ratio < MISMATCH:
        yield (
            "The numbers of exposed users do not fit the shares: something else than the hash"
            " decides who is counted, and the rates cannot be trusted."
        )
    if not plan.reached:
        yield (
            "The planned number of users is not reached: whoever looks until a difference shows"
            " finds one where there is none."
        )
    if exact_users is not None:
        yield (
            f"Users of an arm beyond {exact_users:,} are estimated (HyperLogLog, standard error"
            f" {SKETCH_ERROR:.2%}): differences of that size mean nothing."
        )
