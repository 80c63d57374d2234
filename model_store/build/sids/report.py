"""How good the SIDs of a catalogue are: use of the codebooks, collisions, what prefixes mean."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table

from model_store.build.embed.base import Vectors
from model_store.sid import END, Codes


@dataclass(frozen=True, slots=True)
class LevelReport:
    """One level of the codebook.

    used:       share of its codes that some item has
    perplexity: exp of the entropy of its codes; as large as the codebook if all are used alike
    prefixes:   distinct SIDs when cut behind this level
    purity:     share of the items whose attribute is the commonest behind their prefix, over
                prefixes of two items or more; None without the attribute or such a prefix
    """

    size: int
    used: float
    perplexity: float
    prefixes: int
    purity: float | None


@dataclass(frozen=True, slots=True)
class SidReport:
    """colliding:    share of the items that share a SID with another
    before:       the same of the quantizer's codes, before collisions were resolved
    extra:        share of the items with the extra token
    error:        share of the vectors' variance that the codes lose; 0 is a perfect reconstruction
    held_out:     the same for items that the quantizer has not learnt from
    """

    items: int
    distinct: int
    colliding: float
    levels: tuple[LevelReport, ...]
    extra: float = 0.0
    before: float | None = None
    error: float | None = None
    held_out: float | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def report(
    codes: Codes,
    sizes: Sequence[int],
    attribute: Sequence[object] | None = None,
    **measured: float,
) -> SidReport:
    """Of codes (items, depth), `END` behind a SID that lacks the extra level.

    sizes: of the codebooks, without the extra level; attribute: of each item, for the purity;
    measured: fields that the codes alone do not tell.
    """
    levels = tuple(_level(codes, level, size, attribute) for level, size in enumerate(sizes))
    behind = codes[:, len(sizes) :]
    return SidReport(
        items=len(codes),
        distinct=len(np.unique(codes, axis=0)),
        colliding=colliding(codes),
        levels=levels,
        extra=float((behind != END).any(1).mean()),
        **measured,
    )


def colliding(codes: Codes) -> float:
    """Share of the items that share all codes with another item."""
    _, count = np.unique(codes, axis=0, return_counts=True)
    return float(count[count > 1].sum() / len(codes))


def lost_variance(vectors: Vectors, errors: Vectors) -> float:
    """Mean of squared errors (items,) over the variance of the vectors (items, dimensions)."""
    variance = float(((vectors - vectors.mean(0)) ** 2).sum(1).mean())
    return float(errors.mean()) / variance if variance else 0.0


def sid_table(report: SidReport, title: str) -> Table:
    """One row per level, the whole below."""
    table = Table(title=title, caption=_caption(report))
    for name in ("level", "codes", "in use", "perplexity", "prefixes", "purity"):
        table.add_column(name, justify="right")
    for number, level in enumerate(report.levels, start=1):
        table.add_row(
            str(number),
            f"{level.size:,}",
            f"{level.used:.1%}",
            f"{level.perplexity:,.1f}",
            f"{level.prefixes:,}",
            "" if level.purity is None else f"{level.purity:.3f}",
        )
    return table


def _caption(report: SidReport) -> str:
    lines = [
        f"{report.items:,} items, {report.distinct:,} SIDs;"
        f" {report.colliding:.2%} of the items share one"
        + ("" if report.before is None else f" ({report.before:.2%} before it was resolved)"),
        f"{report.extra:.2%} of the items have the extra token",
    ]
    if report.error is not None:
        lines.append(
            f"{report.error:.1%} of the variance is lost"
            + ("" if report.held_out is None else f", {report.held_out:.1%} of items held out")
        )
    return "\n".join(lines)


def _level(codes: Codes, level: int, size: int, attribute: Sequence[object] | None) -> LevelReport:
    count = np.bincount(codes[:, level], minlength=size)
    share = count[count > 0] / count.sum()
    _, prefix = np.unique(codes[:, : level + 1], axis=0, return_inverse=True)
    return LevelReport(
        size=size,
        used=float((count > 0).mean()),
        perplexity=float(np.exp(-(share * np.log(share)).sum())),
        prefixes=int(prefix.max()) + 1,
        purity=None if attribute is None else purity(prefix, attribute),
    )


def purity(groups: np.ndarray, attribute: Iterable[object]) -> float | None:
    """Share of the items whose attribute is the commonest of their group, over groups of two
    items or more; None if there is no such group. Both have shape (items,)."""
    _, kind = np.unique([str(value) for value in attribute], return_inverse=True)
    pairs, count = np.unique(np.stack([groups, kind]), axis=1, return_counts=True)
    size = np.bincount(groups)
    commonest = np.zeros(len(size), np.int64)
    np.maximum.at(commonest, pairs[0], count)
    shared = size > 1
    return float(commonest[shared].sum() / size[shared].sum()) if shared.any() else None
