"""Draws the trie benchmark: what a step costs does not follow the items, but the children."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.report import COLOURS, figure


def draw(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Writes `out/trie.png`."""
    widest = max(row["beams"] for row in rows)
    layouts = list(dict.fromkeys(row["layout"] for row in rows))
    with figure(out, "trie", 2) as (left, right):
        for layout, colour in zip(layouts, COLOURS, strict=False):
            for name, style in (("trie", "o-"), ("dictionary", "s--")):
                own = [
                    (row["items"], row["microseconds"]["median"])
                    for row in rows
                    if (row["layout"], row["contestant"], row["beams"]) == (layout, name, widest)
                ]
                x, y = zip(*sorted(own), strict=True)
                left.plot(x, y, style, color=colour, label=f"{name}, {layout}")
            levels = [
                (level["children"], level["microseconds"])
                for row in rows
                if (row["layout"], row["contestant"]) == (layout, "trie")
                for level in row["levels"]
            ]
            x, y = zip(*levels, strict=True)
            right.scatter(x, y, color=colour, s=18, label=layout)
        for axis in (left, right):
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.legend(frameon=False, fontsize="small")
        left.set_xlabel("items")
        left.set_ylabel("µs a step, mean over the levels")
        left.set_title(f"{widest} beams", fontsize="medium")
        right.set_xlabel("children of the beams")
        right.set_ylabel("µs a step of the trie, each level")
