"""A picture of the SIDs of a catalogue: how evenly codes are used, what prefixes mean, what is
lost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from model_store.build.embed.base import Vectors
from model_store.build.sids.report import SidReport
from model_store.sid import Codes


def plot_sids(
    report: SidReport,
    codes: Codes,
    path: Path,
    *,
    errors: Vectors | None = None,
    held_out: Vectors | None = None,
) -> bool:
    """Draws into the file `path`; the errors' panel only where they are given.

    False, and no file, without matplotlib (the extra `plot`).
    """
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        return False
    mpl.use("agg")
    from matplotlib import pyplot as plt

    panels: list[Callable[[Any], None]] = [lambda axes: _use(axes, report, codes)]
    if any(level.purity is not None for level in report.levels):
        panels.append(lambda axes: _purity(axes, report))
    if errors is not None and held_out is not None:
        panels.append(lambda axes: _errors(axes, errors, held_out))
    figure, grid = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.4), squeeze=False)
    for draw, axes in zip(panels, grid[0], strict=True):
        draw(axes)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return True


def _use(axes: Any, report: SidReport, codes: Codes) -> None:
    for number, level in enumerate(report.levels):
        count = np.sort(np.bincount(codes[:, number], minlength=level.size))[::-1]
        axes.plot(np.linspace(0, 1, level.size), count / count.mean(), label=f"level {number + 1}")
    axes.axhline(1, color="grey", linewidth=0.6)
    axes.set(title="use of the codes", xlabel="codes, most used first", ylabel="times the mean")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


def _purity(axes: Any, report: SidReport) -> None:
    shown = [(i + 1, level.purity) for i, level in enumerate(report.levels) if level.purity]
    axes.bar(*zip(*shown, strict=True), width=0.6)
    axes.set(title="purity of prefixes", xlabel="levels", ylim=(0, 1), xticks=[x for x, _ in shown])


def _errors(axes: Any, errors: Vectors, held_out: Vectors) -> None:
    bins = np.linspace(0, float(max(errors.max(), held_out.max())) or 1.0, 40)
    for values, label in ((errors, "learnt from"), (held_out, "held out")):
        axes.hist(values, bins, density=True, histtype="step", label=label)
    axes.set(title="reconstruction error", xlabel="squared distance", yticks=[])
    axes.legend(frameon=False)
