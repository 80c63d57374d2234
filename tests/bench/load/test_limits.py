"""What is broken, and what only looks like it."""

import pytest

from bench.load.limits import Limits
from bench.load.samples import Log, Samples


def samples(*answers: tuple[str, str | None], seconds: float = 0.1) -> Samples:
    """Recommendations with these outcomes and reasons."""
    log = Log()
    for number, (outcome, reason) in enumerate(answers):
        source = "model" if reason is None else "popular"
        log.ended(number, seconds, 0.0, False, outcome, {"source": source, "reason": reason})
    return log.samples()


def test_users_without_a_history_are_no_trouble() -> None:
    found = samples(("200", None), ("200", "no_history"), ("200", "nothing_eligible"))
    assert all(check.holds for check in Limits(fallbacks=0, errors=0).check(found))


@pytest.mark.parametrize("reason", ["deadline", "overloaded", "engine_error", "engine_dead"])
def test_other_fallbacks_are(reason: str) -> None:
    found = samples(("200", None), ("200", None), ("200", reason), ("200", None))
    [check] = Limits(fallbacks=0.1).check(found)
    assert (check.found, check.holds) == (0.25, False)
    assert str(check) == "answers that fell back 25.000%, at most 10.000%"


def test_each_limit_that_is_broken_is_named() -> None:
    found = samples(*[("200", None)] * 9, ("503", None), seconds=0.3)
    checks = Limits(p50=100, p95=400, p99=200, errors=0.05).check(found)
    assert [check.holds for check in checks] == [False, True, False, False]
    assert str(checks[0]) == "p50 of recommendations 300 ms, at most 100 ms"
    assert str(checks[-1]) == "requests that failed 10.000%, at most 5.000%"


def test_what_was_never_seen_holds_nothing() -> None:
    assert not any(check.holds for check in Limits(p99=100, fallbacks=1).check(samples()))
    refused = samples(("503", None))
    [fallbacks] = Limits(fallbacks=1).check(refused)
    assert not fallbacks.holds


def test_parts_join_whatever_stages_they_have() -> None:
    def part(**stages: float) -> Samples:
        log = Log()
        log.ended(0.0, 0.1, 0.0, False, "200", {"source": "model", "timing_ms": stages})
        return log.samples()

    joined = Samples.joined([part(search=1.0), Log().samples(), part(items=2.0)])
    assert len(joined) == 2
    assert joined.stages["search"][0] == 1.0
    assert joined.stages["items"][1] == 2.0
    assert joined.stages["search"][1] != joined.stages["search"][1]  # nan
