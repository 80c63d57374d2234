"""What a report says of numbers, and how it reads."""

from collections import Counter
from datetime import timedelta
from typing import Any

from service.experiments.counters import Outcome, Totals, Users
from service.experiments.findings import make_report
from service.experiments.page import page
from service.experiments.report import Report
from tests.service.experiments.conftest import NOW, experiment


def totals(exposed: int, clicked: int, *, exact: bool = True, **counts: int) -> Totals:
    users: dict[Outcome, Users] = {
        "exposed": Users(exposed, exact),
        "clicked": Users(clicked, True),
        "purchased": Users(0, True),
    }
    return Totals(users, Counter(counts))


def report(narrow: Totals, wide: Totals, **fields: Any) -> Report:
    found = {"narrow": narrow, "wide": wide}
    return make_report(experiment(**fields), found, NOW + timedelta(hours=1), 1_000_000)


def test_before_anybody_came() -> None:
    found = report(totals(0, 0), totals(0, 0))
    assert found.plan.users is None
    assert [arm.clicking.value for arm in found.arms] == [None, None]
    assert "Nobody knows" in page(found)
    planned = report(totals(0, 0), totals(0, 0), plan={"base_rate": 0.1})
    assert planned.plan.users == {"narrow": 14751, "wide": 14751}
    assert not planned.plan.reached


def test_a_difference_that_was_planned_for() -> None:
    found = report(totals(15_000, 1500, answers=20_000, fallbacks=100), totals(15_010, 1700))
    [narrow, wide] = found.arms
    assert wide.clicking_vs_control is not None
    assert wide.clicking_vs_control.verdict == "better"
    assert narrow.guardrails.fallback_share == 0.005
    assert (found.plan.reached, found.exact, found.notes) == (True, True, [])
    assert 'class="better"' in page(found)


def test_what_to_know_before_believing_it() -> None:
    found = report(totals(1_500_000, 150_000, exact=False), totals(1_400_000, 150_000))
    assert not found.exact
    assert any("do not fit the shares" in note for note in found.notes)
    assert any("HyperLogLog, standard error 0.81%" in note for note in found.notes)
    early = report(totals(100, 10), totals(105, 30))
    assert any("is not reached" in note for note in early.notes)
    assert all(note in page(early) for note in early.notes)


def test_several_arms_are_judged_together() -> None:
    arms = [{"name": "c", "share": 0.25, "control": True}]
    arms += [{"name": name, "share": 0.25} for name in ("x", "y", "z")]
    one = experiment(arms=arms)
    numbers = {"c": 1000, "x": 1075, "y": 1005, "z": 1000}
    found = make_report(one, {a: totals(10_000, n) for a, n in numbers.items()}, NOW, 1000)
    by_name = {arm.name: arm.clicking_vs_control for arm in found.arms}
    x = by_name["x"]
    assert x is not None
    assert x.p_value < 0.1 < x.adjusted_p_value
    assert x.verdict == "no difference found"
    assert by_name["c"] is None


def test_names_are_text_in_the_page() -> None:
    found = report(totals(1, 0), totals(1, 0), description="<script>alert(1)</script>")
    assert "<script>" not in page(found)
