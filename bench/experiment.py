"""Experiments on users who are made up: does the division divide, and does the test tell the truth?

Everything is the service's own: the assignment hashes each user with each experiment's salt, the
statistics judge, the planner says how many users it takes. Made up are only the users, and whether
each of them clicks.

- *Assignment*: chi-square of the numbers in 2 and in 100 arms; of one experiment against another.
- *A/A*: both arms are the same. The share of experiments that find a difference is alpha.
- *A/B*: one arm has a true lift. The share of experiments that find it, at the number of users that
  the planner says, is the power that was asked for.
"""

from collections.abc import Callable, Sequence
from math import sqrt
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from scipy.stats import chi2_contingency, chisquare

from bench.machine import describe
from bench.options import DEFAULT_OUT, Out
from bench.report import figure, print_table, write_json
from service.experiments.assignment import Assignment
from service.experiments.statistics import compare, users_needed

Numbers = npt.NDArray[np.int64]

HALVES = {"control": 0.5, "other": 0.5}


def experiment(
    users: Annotated[int, typer.Option(min=100, help="Users of an A/A experiment.")] = 200_000,
    experiments: Annotated[int, typer.Option(min=2, help="A/A experiments.")] = 500,
    lifted: Annotated[int, typer.Option(min=2, help="A/B experiments.")] = 1000,
    base_rate: Annotated[float, typer.Option(help="Share of users who click.")] = 0.1,
    lift: Annotated[float, typer.Option(help="True relative lift of the A/B experiments.")] = 0.1,
    alpha: Annotated[float, typer.Option(help="False alarms to expect.")] = 0.05,
    power: Annotated[float, typer.Option(help="Power to plan for.")] = 0.8,
    seed: Annotated[int, typer.Option(help="Of the users' clicks.")] = 20,
    out: Out = DEFAULT_OUT,
) -> None:
    """Assignment, false alarms and power of experiments, on simulated users."""
    settings = dict(locals())
    rng = np.random.default_rng(seed)
    names = [f"user-{n}" for n in range(users)]
    rows = [uniform(names, arms) for arms in (2, 100)] + [independent(names)]
    alarms = p_values(names, experiments, rng, base_rate, 0.0, "a/a")
    rows.append(_found("A/A: a difference found", alarms, alpha, alpha))
    needed = users_needed(base_rate, lift, alpha=alpha, power=power)
    if needed is None:
        raise typer.BadParameter("no rate is above 1", param_hint="--lift")
    enough = [f"visitor-{n}" for n in range(sum(needed))]
    seen = p_values(enough, lifted, rng, base_rate, lift, "a/b")
    title = f"A/B: a lift of {lift:.0%} found with {needed[0]:,} users an arm"
    rows.append(_found(title, seen, alpha, power))
    print_table(
        f"{users:,} users, {experiments} A/A and {lifted} A/B experiments",
        ("", "found", "expected", "standard error"),
        [[row["what"], *(f"{row[key]:.4g}" for key in _SHOWN)] for row in rows],
    )
    write_json(out, "experiment", machine=describe(), settings=settings, rows=rows)
    _draw(alarms, seen, out)


_SHOWN = ("found", "expected", "error")


def numbers(salt: str, shares: dict[str, float], names: Sequence[str]) -> Numbers:
    """The arm (n,) of each user by its place in `shares`, -1 outside."""
    place: dict[str | None, int] = {name: i for i, name in enumerate(shares)}
    place[None] = -1
    arm: Callable[[str], str | None] = Assignment(salt, shares).arm
    return np.fromiter((place[arm(name)] for name in names), np.int64, len(names))


def uniform(names: Sequence[str], arms: int, salt: str = "uniform") -> dict[str, Any]:
    """Whether arms of equal shares have equally many users."""
    shares = {f"arm-{n}": 1 / arms for n in range(arms)}
    counts = np.bincount(numbers(salt, shares, names), minlength=arms)
    p_value = float(chisquare(counts).pvalue)
    return _p(f"chi-square of {arms} arms: p", p_value)


def independent(names: Sequence[str], one: str = "one", other: str = "other") -> dict[str, Any]:
    """Whether the arm in one experiment says anything of that in another."""
    shares = {f"arm-{n}": 1 / 10 for n in range(10)}
    pairs = 10 * numbers(one, shares, names) + numbers(other, shares, names)
    table = np.bincount(pairs, minlength=100).reshape(10, 10)
    p_value = float(chi2_contingency(table, correction=False).pvalue)
    return _p("chi-square of two experiments of 10 arms: p", p_value)


def p_values(
    names: Sequence[str],
    experiments: int,
    rng: np.random.Generator,
    base_rate: float,
    lift: float,
    salts: str,
) -> npt.NDArray[np.float64]:
    """Of as many experiments, each with a salt of its own, in which the other arm has this lift.

    Users differ: some click often, some never. What a user does in either arm is settled before
    users are divided.
    """
    found = []
    for n in range(experiments):
        arms = numbers(f"{salts}-{n}", HALVES, names)
        # Propensities of mean `base_rate`, bounded so that a lifted one is a probability too.
        inclined = base_rate * (1 + rng.uniform(-0.9, 0.9, len(names)))
        mood = rng.random(len(names))
        clicks = mood < inclined * np.where(arms == 1, 1 + lift, 1)
        counts = np.bincount(2 * arms + clicks, minlength=4).tolist()
        compared = compare(counts[3], counts[2] + counts[3], counts[1], counts[0] + counts[1])
        assert compared is not None
        found.append(compared.p_value)
    return np.array(found)


def _p(what: str, p_value: float) -> dict[str, Any]:
    """P-values lie anywhere between 0 and 1 where there is nothing to find."""
    return {"what": what, "found": p_value, "expected": 0.5, "error": sqrt(1 / 12)}


def _found(
    what: str, p_values: npt.NDArray[np.float64], alpha: float, expected: float
) -> dict[str, Any]:
    error = sqrt(expected * (1 - expected) / len(p_values))
    found = float(np.mean(p_values <= alpha))
    return {"what": what, "found": found, "expected": expected, "error": error}


def _draw(alarms: npt.NDArray[np.float64], seen: npt.NDArray[np.float64], out: Path) -> None:
    """P-values in order: those of nothing on the diagonal, those of a lift below it."""
    with figure(out, "experiment", 1) as [axis]:
        for label, values in (("A/A", alarms), ("A/B", seen)):
            axis.plot(np.linspace(0, 1, len(values)), np.sort(values), label=label)
        axis.plot([0, 1], [0, 1], linestyle=":", label="nothing to find")
        axis.set_xlabel("share of experiments")
        axis.set_ylabel("p-value")
        axis.legend()
