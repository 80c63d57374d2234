"""The course of a soak: memory, open files and latency over time, with what happened meanwhile."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from bench.report import COLOURS, figure
from bench.soak_load import Account
from bench.soak_world import World

_SLOT_S = 10.0
_SHARES = (50, 99)


def draw(account: Account, world: World, began: float, out: Path) -> None:
    """Writes `out/soak.png`."""
    at = [(sample.at - began) / 60 for sample in world.samples]
    with figure(out, "soak", 3, height=3.6) as [memory, files, latency]:
        for name, values in (
            ("resident", [sample.rss for sample in world.samples]),
            ("proportional", [sample.pss for sample in world.samples]),
        ):
            memory.plot(at, np.array(values) / 2**20, linewidth=1, label=name)
        memory.set_ylim(bottom=0)
        memory.set_ylabel("memory, MB")
        for name, counts in (
            ("no connections", [sample.own for sample in world.samples]),
            ("to Redis", [sample.unix for sample in world.samples]),
            ("of clients", [sample.clients for sample in world.samples]),
        ):
            files.plot(at, counts, linewidth=1, label=name)
        files.set_ylim(bottom=0)
        files.set_ylabel("open files")
        _latency(latency, account, began)
        for axis in (memory, files, latency):
            _mark(axis, world, began)
            axis.set_xlabel("minutes; grey: a swap, red: Redis away")
            axis.legend(frameon=False, fontsize="small")


def _latency(axis: Axes, account: Account, began: float) -> None:
    due = np.array([response.due for response in account.responses]) - began
    taken = np.array([one.there - one.due for one in account.responses]) * 1e3
    slot = (due // _SLOT_S).astype(int)
    slots = np.unique(slot)
    for share in _SHARES:
        values = [np.percentile(taken[slot == one], share) for one in slots]
        axis.plot((slots + 0.5) * _SLOT_S / 60, values, linewidth=1, label=f"p{share}")
    axis.set_yscale("log")
    axis.set_ylabel("ms from when it was due, each 10 s")


def _mark(axis: Axes, world: World, began: float) -> None:
    for swap in world.swaps:
        axis.axvline((swap.done - began) / 60, color=COLOURS[6], linewidth=0.4, zorder=0)
    for outage in world.outages:
        start, end = ((moment - began) / 60 for moment in (outage.began, outage.ended))
        axis.axvspan(start, end, color=COLOURS[1], alpha=0.5, linewidth=0)
