"""Whether a version may become the champion, and what is said about it."""

import pytest

from model_store.build.gate import Rule, judge
from model_store.errors import BuildError

METRICS = {"shop model": {"NDCG@10": 0.10}, "co-occurrence": {"NDCG@10": 0.08}}


@pytest.mark.parametrize(
    ("rule", "champion", "holds", "line"),
    [
        (Rule(), None, True, "NDCG@10 0.1000: there is no champion yet"),
        (Rule(), 0.10, True, "NDCG@10 0.1000 ≥ 0.1000 (champion)"),
        (Rule(), 0.11, False, "NDCG@10 0.1000 < 0.1100 (champion)"),
        (Rule(), 0.100002, False, "NDCG@10 0.100000 < 0.100002 (champion)"),
        (Rule(margin=0.02), 0.099, False, "NDCG@10 0.1000 < 0.1010 (champion × 1.02)"),
        (Rule(margin=-0.05), 0.104, True, "NDCG@10 0.1000 ≥ 0.0988 (champion × 0.95)"),
        (Rule(against="co-occurrence"), None, True, "NDCG@10 0.1000 ≥ 0.0800 (co-occurrence)"),
        (
            Rule(against="co-occurrence", margin=0.5),
            None,
            False,
            "NDCG@10 0.1000 < 0.1200 (co-occurrence × 1.5)",
        ),
    ],
)
def test_a_rule(rule: Rule, champion: float | None, holds: bool, line: str) -> None:
    theirs = None if champion is None else {"shop model": {"NDCG@10": champion}}
    assert judge([rule], "shop model", METRICS, theirs) == (holds, [line])


def test_all_rules_must_hold() -> None:
    rules = [Rule(against="co-occurrence"), Rule()]
    holds, lines = judge(rules, "shop model", METRICS, {"shop model": {"NDCG@10": 0.2}})
    assert not holds
    assert len(lines) == 2
    assert judge([], "shop model", METRICS, None) == (True, [])


def test_a_champion_that_was_measured_otherwise_is_not_beaten() -> None:
    holds, [line] = judge([Rule()], "shop model", METRICS, {"other": {"NDCG@10": 0.0}})
    assert not holds
    assert "no NDCG@10 of 'shop model'" in line


@pytest.mark.parametrize("rule", [Rule(metric="MRR"), Rule(against="SASRec")])
def test_what_was_not_measured_is_named(rule: Rule) -> None:
    with pytest.raises(BuildError, match="was not measured, only shop model, co-occurrence"):
        judge([rule], "shop model", METRICS, None)
