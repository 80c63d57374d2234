from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from model_store.build.sids.report import colliding, lost_variance, purity, report, sid_table
from model_store.build.sids.sid_plot import plot_sids
from model_store.sid import END

CODES = np.array([[0, 0, END], [0, 0, END], [0, 1, END], [0, 2, 0], [0, 2, 1], [2, 0, END]])
BRANDS = ["x", "x", "y", "x", "z", "y"]


def test_a_report_says_what_the_codes_say() -> None:
    made = report(CODES, (4, 4), BRANDS, before=0.5)
    first, second = made.levels
    assert (made.items, made.distinct) == (6, 5)
    assert made.colliding == pytest.approx(2 / 6)
    assert made.extra == pytest.approx(2 / 6)
    assert (first.used, second.used) == (0.5, 0.75)
    p = np.array([5, 1]) / 6
    assert first.perplexity == pytest.approx(np.exp(-(p * np.log(p)).sum()))
    assert (first.prefixes, second.prefixes) == (2, 4)
    # Behind <0>: 3 of 5 are x. Behind <0><0>: 2 of 2, behind <0><2>: 1 of 2; the rest is alone.
    assert first.purity == pytest.approx(3 / 5)
    assert second.purity == pytest.approx(3 / 4)


def test_use_of_a_level_is_its_perplexity_where_all_codes_are_used_alike() -> None:
    codes = np.array([[i % 8, i // 8] for i in range(64)])
    assert [level.perplexity for level in report(codes, (8, 8)).levels] == pytest.approx([8, 8])


def test_purity_needs_a_group_of_two() -> None:
    assert purity(np.array([0, 1]), ["x", "y"]) is None
    assert purity(np.array([0, 0, 1]), ["x", "y", "y"]) == 0.5


def test_collisions_and_lost_variance() -> None:
    assert colliding(CODES[:, :2]) == pytest.approx(4 / 6)
    vectors = np.array([[1.0, 0], [-1, 0]], np.float32)
    assert lost_variance(vectors, np.array([0.5, 0.1], np.float32)) == pytest.approx(0.3)


def test_table_and_picture(tmp_path: Path) -> None:
    made = report(CODES, (4, 4), BRANDS, before=0.5, error=0.25, held_out=0.3)
    console = Console(width=100)
    with console.capture() as captured:
        console.print(sid_table(made, "SIDs"))
    shown = captured.get()
    for expected in ("50.0%", "0.600", "33.33%", "25.0% of the variance", "30.0%"):
        assert expected in shown
    errors = np.linspace(0, 1, 6, dtype=np.float32)
    assert plot_sids(made, CODES, tmp_path / "one.png", errors=errors, held_out=errors + 1)
    assert plot_sids(report(CODES, (4, 4)), CODES, tmp_path / "two.png")
    with Image.open(tmp_path / "one.png") as wide, Image.open(tmp_path / "two.png") as narrow:
        assert wide.width == 3 * narrow.width
