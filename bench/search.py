"""How well a bundle finds its own items by their words, beside BM25 over the same titles.

Two kinds of queries, the same for both: whole titles, where the item should come first, and three
words of a title that stand side by side, where it should be among the first ten. Three words may
well fit many items alike, so a row says what could be reached: were all the items that contain the
fragment found before any other, in random order.

BM25 is Lucene's variant of it (k1 1.5, b 0.75), from bm25s. Titles mix Chinese and English, so
words are cut as Lucene's CJKAnalyzer cuts them: runs of letters and digits in lower case, and of
Chinese every pair of neighbouring characters, a single one alone.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import bm25s
import numpy as np
import torch
import typer
from rich.progress import track

from bench.machine import describe
from bench.options import DEFAULT_OUT, DEFAULT_THREADS, BundleFolder, Out, Threads
from bench.report import print_table, write_json
from model_store.bundle import Bundle
from service.engine import Query, create_engine
from service.errors import NotTrained
from service.ranking import best_items
from service.settings import Settings
from service.title_prompts import TitlePrompts

FRAGMENT = 3
AMONG = 10

_AT_ONCE = 64
_WORDS = re.compile(r"[\u3400-\u9fff]+|[^\W_\u3400-\u9fff]+")


@dataclass(frozen=True, slots=True)
class Case:
    """The row that is looked for, its title, and some words of it."""

    row: int
    title: str
    fragment: str


def search(
    bundle: BundleFolder = None,
    count: Annotated[int, typer.Option(min=1, help="Titles, drawn at random.")] = 500,
    beams: Annotated[int, typer.Option(min=AMONG, help="Beams of a search.")] = 20,
    threads: Threads = DEFAULT_THREADS,
    out: Out = DEFAULT_OUT,
) -> None:
    """Titles and fragments of them: how often the model finds the item, and how often BM25."""
    torch.set_num_threads(threads)
    served = Bundle.load(bundle or Settings.model_fields["bundle"].default)
    cases = draw(served, count)
    titles, fragments = ([case.title for case in cases], [case.fragment for case in cases])
    try:
        prompts = TitlePrompts(served)
        by_model = [_by_model(served, prompts, q, beams) for q in (titles, fragments)]
    except NotTrained as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    by_words = [_by_words(served, queries) for queries in (titles, fragments)]
    right = [case.row for case in cases]
    found = {
        f"{served.name} model": judged(by_model[0], by_model[1], right),
        "BM25": judged(by_words[0], by_words[1], right),
    }
    best = float(np.mean([ceiling(served, case.fragment) for case in cases]))
    print_table(
        f"{served.name} {served.version}: {len(cases)} of {len(served.catalogue):,} items by words",
        ["searcher", "title: first", "95%", f"{FRAGMENT} words: first {AMONG}", "95%"],
        [[name, *_shown(of["title"]), *_shown(of["fragment"])] for name, of in found.items()]
        + [["what can be reached", "", "", f"{best:.3f}", ""]],
    )
    write_json(
        out,
        f"search-{served.name}",
        machine=describe(),
        settings={"bundle": str(served.path), "count": count, "beams": beams},
        rows=[
            *({"searcher": name} | of for name, of in found.items()),
            {"searcher": "what can be reached", "fragment": {"share": best}},
        ],
    )


def draw(bundle: Bundle, count: int, seed: int = 20) -> list[Case]:
    """At most `count` items whose titles have words enough, each with a random fragment."""
    rng = np.random.default_rng(seed)
    titled = [
        (row, title)
        for row, title in enumerate(bundle.catalogue.titles)
        if title and len(title.split()) >= FRAGMENT
    ]
    cases = []
    for place in sorted(rng.permutation(len(titled))[:count]):
        row, title = titled[place]
        words = title.split()
        start = int(rng.integers(len(words) - FRAGMENT + 1))
        cases.append(Case(row, title, " ".join(words[start : start + FRAGMENT])))
    return cases


def words_of(text: str) -> list[str]:
    """What BM25 counts; see above."""
    words: list[str] = []
    for run in _WORDS.findall(text.lower()):
        chinese = "\u3400" <= run[0] <= "\u9fff"
        words += [run[i : i + 2] for i in range(len(run) - 1)] if chinese and run[1:] else [run]
    return words


def judged(
    by_title: Sequence[Sequence[int]], by_fragment: Sequence[Sequence[int]], right: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Shares of the rows in `right` that are first for their title, and among the first ten for
    their fragment, with intervals."""
    first = [rows[:1] == [row] for rows, row in zip(by_title, right, strict=True)]
    among = [row in rows[:AMONG] for rows, row in zip(by_fragment, right, strict=True)]
    return {"title": _share(first), "fragment": _share(among)}


def wilson(hits: int, of: int) -> tuple[float, float]:
    """The 95% interval of a share (Wilson, 1927)."""
    z, share = 1.96, hits / of
    middle = share + z * z / (2 * of)
    half = z * float(np.sqrt(share * (1 - share) / of + z * z / (4 * of * of)))
    return (middle - half) / (1 + z * z / of), (middle + half) / (1 + z * z / of)


def ceiling(bundle: Bundle, fragment: str) -> float:
    """The chance of an item to be among the first ten of all that contain the fragment."""
    alike = sum(fragment in (title or "") for title in bundle.catalogue.titles)
    return min(1.0, AMONG / alike)


def _by_model(
    bundle: Bundle, prompts: TitlePrompts, queries: Sequence[str], beams: int
) -> list[list[int]]:
    asked = [Query(prompts.ask_sid(query), beams) for query in queries]
    found: list[list[int]] = []
    with create_engine("torch", bundle) as engine:
        for start in track(range(0, len(asked), _AT_ONCE), "searching"):
            answers = engine.search_batch(asked[start : start + _AT_ONCE])
            found += [[row for row, _ in best_items(answer, AMONG)] for answer in answers]
    return found


def _by_words(bundle: Bundle, queries: Sequence[str]) -> list[list[int]]:
    index = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    index.index([words_of(title or "") for title in bundle.catalogue.titles], show_progress=False)
    scores = (index.get_scores(words_of(query)) for query in queries)
    return [np.argsort(-score, kind="stable")[:AMONG].tolist() for score in scores]


def _share(hits: Sequence[bool]) -> dict[str, Any]:
    return {"share": sum(hits) / len(hits), "of": len(hits), "95%": wilson(sum(hits), len(hits))}


def _shown(share: dict[str, Any]) -> tuple[str, str]:
    low, high = share["95%"]
    return f"{share['share']:.3f}", f"{low:.3f}–{high:.3f}"
