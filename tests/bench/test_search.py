"""The bench of searches: counted right, words cut right, and run on a bundle."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.search import ceiling, draw, judged, wilson, words_of
from model_store.bundle import Bundle
from tests.service.titled import titled_bundle
from tests.tiny import make_bundle, random_items


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return titled_bundle(tmp_path_factory.mktemp("search"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Quillon K3 4K, 32-inch", ["quillon", "k3", "4k", "32", "inch"]),
        ("轻量化鼠标", ["轻量", "量化", "化鼠", "鼠标"]),
        ("无线Mouse 黑_色", ["无线", "mouse", "黑", "色"]),
        ("Éclair naïve", ["éclair", "naïve"]),
        ("", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_shares() -> None:
    found = judged([[1, 2], [1, 2], []], [[5, 1], [*range(10, 20), 2], [3]], [1, 2, 3])
    assert found["title"]["share"] == 1 / 3
    assert found["fragment"]["share"] == 2 / 3
    assert found["title"]["of"] == 3


def test_intervals() -> None:
    # The values of Brown, Cai and DasGupta's formula for 10 of 20, and the edges.
    assert wilson(10, 20) == pytest.approx((0.2993, 0.7007), abs=1e-4)
    assert wilson(0, 50)[0] == pytest.approx(0)
    assert wilson(50, 50)[1] == pytest.approx(1)


def test_cases_are_fragments_of_titles(bundle: Bundle) -> None:
    cases = draw(bundle, 30)
    assert len({case.row for case in cases}) == len(cases) == 30
    for case in cases:
        assert case.title == bundle.catalogue.titles[case.row]
        assert case.fragment in case.title
        assert len(case.fragment.split()) == 3
        assert ceiling(bundle, case.fragment) == 1
    assert draw(bundle, 30) == cases
    assert ceiling(bundle, "Title") == pytest.approx(10 / 60)


def test_both_searchers_are_measured(bundle: Bundle, tmp_path: Path) -> None:
    options = ["--bundle", bundle.path, "--count", 20, "--threads", 1, "--out", tmp_path]
    result = CliRunner().invoke(app, ["search", *map(str, options)])
    assert result.exit_code == 0, result.output
    model, words, best = json.loads((tmp_path / "search-tiny.json").read_text())["rows"]
    assert words["title"]["share"] == words["fragment"]["share"] == 1  # each has its number
    assert model["title"]["of"] == 20
    assert 0 <= model["title"]["share"] < 0.5
    assert best["fragment"]["share"] == 1


def test_a_bundle_without_title_tasks(tmp_path: Path) -> None:
    plain = make_bundle(tmp_path, random_items(20, (4, 4)))
    result = CliRunner().invoke(app, ["search", "--bundle", str(plain.path)])
    assert result.exit_code == 1
    assert "has no prompts for titles" in result.output
