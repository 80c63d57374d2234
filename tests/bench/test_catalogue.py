"""The benchmark of a changing catalogue from end to end, which is also its test in short form."""

from pathlib import Path

from service.settings import Settings
from tests.bench.conftest import Measure


def test_changes_under_load(measure: Measure) -> None:
    demo: Path = Settings.model_fields["bundle"].default
    found = measure(
        "catalogue",
        *("--bundle", demo, "--engine", "fake", "--upserts", 500, "--clients", 4),
        *("--at-once", 25, "--seconds", 0.5, "--users", 20, "--threads", 1),
    )
    quiet, changing = found["rows"]
    assert changing["upserts"] == 500
    assert changing["deleted"] > 20
    assert changing["new_items_found"] > 300
    assert (changing["errors"], changing["deleted_items_shown"]) == (0, 0)
    assert changing["slowest_new_item_s"] < 10  # a second, on a machine of its own
    assert min(quiet["asked"], changing["asked"]) > 10
    ratio = changing["asked_ms"]["p99"] / quiet["asked_ms"]["p99"]
    assert abs(changing["p99_over_quiet"] / ratio - 1) < 1e-9
