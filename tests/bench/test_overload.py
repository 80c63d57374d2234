"""The overload benchmark runs against a real service, and counts what it says."""

import pytest

from bench.http_load import Answered, Sent, even
from bench.overload import _row
from model_store.bundle import Bundle
from tests.bench.conftest import Measure


def test_it_runs_to_the_end(measure: Measure, bundle: Bundle) -> None:
    options = ("--seconds", 3, "--calm", 2, "--users", 20, "--max-wait-ms", 20, "--threads", 1)
    [row] = measure("overload", "--bundle", bundle.path, "--engine", "fake", *options)["rows"]
    assert row["saturation"] > 0
    assert row["asked"] == pytest.approx(3 * row["saturation"])
    assert row["below_p99_ms"] > 0
    assert row["admitted_per_second"] > 0
    assert row["memory_mb"][0] > 10


def test_each_phase_is_counted_for_itself() -> None:
    calm = [Sent(second / 10, 0.1, "200") for second in range(100)]
    flood = [Sent(10 + n / 10, 0.15, "200") for n in range(49)] + [Sent(14.9, 0.15, "popular")]
    flood += [Sent(15 + n / 10, 0.01, "503") for n in range(49)] + [Sent(19.9, 30.0, "error")]
    after = [Sent(20.55, 0.3, "200"), Sent(21.25, 0.1, "503")]
    after += [Sent(22 + n / 100, 0.08, "200") for n in range(100)]
    each = calm + flood + after
    memory = [(1000.0, 1), (1016.0, 100 << 20), (1019.0, 101 << 20), (1025.0, 900 << 20)]
    found = Answered([one.seconds for one in each], {}, 30.0, 1.0, 0.0, [], each, 1000.0)
    first = [Sent(second / 10, 0.12, "200") for second in range(30)]
    row = _row(first, found, memory, calm=10, seconds=10)
    # Of all three spans, without the two seconds behind the flood.
    assert row["below_p99_ms"] == pytest.approx(120)
    assert row["below_p99_of_each_ms"] == pytest.approx([120, 100, 80])
    assert row["admitted_p99_over_below"] == pytest.approx(1.25)
    assert (row["refused"], row["otherwise"]) == (49, 1)
    assert (row["admitted_per_second"], row["by_fallback"]) == (5, 1)
    assert row["refused_p99_ms"] == pytest.approx(10)
    assert row["normal_after_s"] == pytest.approx(0.6)  # one of a hundred may be late
    assert row["memory_growth"] == pytest.approx(0.01)


def test_a_schedule_of_constant_rates() -> None:
    assert even([(2, 1), (4, 0.5), (1, 2)]) == [0, 0.5, 1, 1.25, 1.5, 2.5]
