"""Draws the trie benchmark: what a step costs does not follow the items, but the children."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.report import COLOURS, figure, logarithmic

_STYLES = {"trie": "o-", "dictionary": "s--", "dictionary in generate": "^:"}


def draw(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Writes `out/trie.png`."""
    widest = max(row["beams"] for row in rows)
    layouts = list(dict.fromkeys(row["layout"] for row in rows))
    with figure(out, "trie", 2, height=5) as (left, right):
        for layout, colour in zip(layouts, COLOURS, strict=False):
            for name, style in _STYLES.items():
                own = [
                    (row["items"], row["microseconds"]["median"])
                    for row in rows
                    if (row["layout"], row["contestant"], row["beams"]) == (layout, name, widest)
                ]
                x, y = zip(*sorted(own), strict=True)
                left.plot(x, y, style, color=colour)
            levels = [
                (level["children"], level["microseconds"])
                for row in rows
                if (row["layout"], row["contestant"]) == (layout, "trie")
                for level in row["levels"]
            ]
            x, y = zip(*levels, strict=True)
            right.scatter(x, y, color=colour, s=20, label=layout)
        for name, style in _STYLES.items():
            left.plot([], [], style, color="black", label=name)
        for axis in (left, right):
            logarithmic(axis)
            axis.legend(
                frameon=False,
                fontsize="small",
                loc="lower center",
                ncols=3,
                bbox_to_anchor=(0.5, 1.0),
            )
        left.set_xlabel("items")
        left.set_ylabel(f"µs a step of {widest} beams, mean over the levels")
        right.set_xlabel("children of the beams")
        right.set_ylabel("µs a step of the trie, each level")
