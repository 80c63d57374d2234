"""The prefix trie against a dictionary of prefixes, from ten thousand to ten million items.

A step is what an engine does with the trie at each level: children of the beams, their
log-probabilities, and the best of them (`service.engine.beams.advance`). All contestants take the
steps of the same searches, over random log-probabilities, in turn; every answer is compared, in
the first search also with that of an oracle. The floor of a step is the addition and the top-k
over as many numbers as the beams have children, in plain torch.
"""

from collections.abc import Iterable
from typing import Annotated, Any

import torch
import typer

from bench import trie_plot
from bench.machine import describe
from bench.options import DEFAULT_OUT, DEFAULT_THREADS, Ints, Out, Threads, ints
from bench.report import console, print_table, write_json
from bench.timing import Spread, digits
from bench.trie_contest import Layout, measure

LAYOUTS = (Layout(4, 256), Layout(3, 8192), Layout(4, 256, skewed=True))


def trie(
    items: Annotated[Ints, ints("Items of a catalogue.")] = Ints((10_000, 1_000_000)),
    beams: Annotated[Ints, ints("Beams of a search.")] = Ints((20, 200)),
    searches: Annotated[int, typer.Option(min=2, help="Searches that are measured.")] = 7,
    vocabulary: Annotated[int, typer.Option(help="Tokens beside the SIDs', in generate.")] = 151936,
    oracle: Annotated[bool, typer.Option(help="Check one search by the oracle.")] = True,
    threads: Threads = DEFAULT_THREADS,
    out: Out = DEFAULT_OUT,
) -> None:
    """The prefix trie against dictionaries and sets of tuples."""
    settings = dict(locals())
    torch.set_num_threads(threads)
    rows = []
    for layout in LAYOUTS:
        for count in items:
            found = measure(layout, count, beams, searches, vocabulary, oracle)
            _print(
                found, f"{count:,} items of {layout}, sorted in {found[0]['sort_seconds']:.3f} s"
            )
            rows += found
    write_json(out, "trie", machine=describe(), settings=settings, rows=rows)
    trie_plot.draw(rows, out)


def _print(rows: Iterable[dict[str, Any]], title: str) -> None:
    lines = []
    for row in sorted(rows, key=lambda row: int(row["beams"])):
        spread = Spread(**row["microseconds"])
        lines.append(
            [
                row["contestant"],
                str(row["beams"]),
                digits(spread.median),
                f"{digits(spread.low)} to {digits(spread.high)}",
                digits(Spread(**row["over_trie"]).median) if "over_trie" in row else "",
                f"{row['time_over_floor']:.1f}" if "time_over_floor" in row else "",
                "" if row["build_seconds"] is None else digits(row["build_seconds"]),
                "" if row["bytes_per_item"] is None else digits(row["bytes_per_item"]),
            ]
        )
    columns = (
        "",
        "beams",
        "µs a step",
        "quartiles",
        "over trie",
        "over floor",
        "build s",
        "bytes/item",
    )
    print_table(title, columns, lines)
    console.print()
