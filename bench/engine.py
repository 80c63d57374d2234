"""Engines in turn on the same prompts: latency alone, throughput with more in flight, the floor.

"N in flight" hands N prompts in together and waits for the last answer; Hugging Face may cut them
into the batches that suit it best. A contestant that took longer than `--patience` for a cell is
not asked again there, nor where prompts, beams and flight are all at least as large.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from typing import Annotated, Any

import torch
import typer
from rich.progress import track

from bench import contestants, engine_plot, shapes
from bench.contestants import HUGGING_FACE, TORCH, WITH_VLLM, Answers, BestBatch, Search, Setup
from bench.floor import Floor, Sizes, floor, plan, rows_at
from bench.machine import describe
from bench.options import DEFAULT_OUT, DEFAULT_THREADS, BundleFolder, Ints, Out, Threads, ints
from bench.report import console, print_table, write_json
from bench.timing import Spread, alternate, digits
from model_store.bundle import Bundle

_QUICK_S = 1.0


@dataclass(frozen=True, slots=True)
class Cell:
    """One setting in which all contestants meet."""

    tokens: int
    beams: int
    in_flight: int

    def at_least(self, other: "Cell") -> bool:
        return (
            self.tokens >= other.tokens
            and self.beams >= other.beams
            and self.in_flight >= other.in_flight
        )


@dataclass
class Outcome:
    """What one cell gave: seconds round by round, answers, and the floor.

    batch_size: of those that have a choice, the prompts that they take at once
    """

    cell: Cell
    seconds: dict[str, list[float]]
    answers: dict[str, list[Answers]]
    batch_size: dict[str, int]
    floor: list[Floor] = field(default_factory=list)

    def rows(self) -> Iterable[dict[str, Any]]:
        """A JSON object for each contestant."""
        least = sum(phase.seconds for phase in self.floor)
        for name, seconds in self.seconds.items():
            spread = Spread.of(seconds)
            row: dict[str, Any] = {
                "tokens": self.cell.tokens,
                "beams": self.cell.beams,
                "in_flight": self.cell.in_flight,
                "contestant": name,
                "seconds": spread.json(),
                "per_second": self.cell.in_flight / spread.median,
                "batch_size": self.batch_size.get(name),
                "floor_seconds": least,
                "floor_phases": [
                    {"phase": p.name, "arithmetic": p.arithmetic, "memory": p.memory}
                    for p in self.floor
                ],
                "time_over_floor": spread.median / least,
            }
            if TORCH in self.seconds:
                pairs = zip(seconds, self.seconds[TORCH], strict=True)
                row["over_torch"] = Spread.of([a / b for a, b in pairs]).json()
                row |= _agreement(self.answers[name], self.answers[TORCH])
            yield row


def engine(
    shape: Annotated[str, typer.Option(help=f"The model: {' or '.join(shapes.SHAPES)}.")] = "demo",
    bundle: BundleFolder = None,
    tokens: Annotated[Ints, ints("Tokens of a prompt.")] = Ints((132,)),
    beams: Annotated[Ints, ints("Beams of a search.")] = Ints((20,)),
    in_flight: Annotated[Ints, ints("Queries handed in together.")] = Ints((1, 16)),
    grid: Annotated[bool, typer.Option(help="All combinations, not one list at a time.")] = False,
    returning: Annotated[
        bool, typer.Option(help="Each prompt was asked before, without its last item.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; with more in flight a third.")] = 15,
    patience: Annotated[float, typer.Option(help="Seconds after which one sits out.")] = 60,
    hugging_face: Annotated[bool, typer.Option(help="With Hugging Face `generate`.")] = True,
    vllm: Annotated[bool, typer.Option(help="With vLLM: ours on it, and its own search.")] = False,
    device: Annotated[str, typer.Option(help="cpu in fp32, or cuda in bf16.")] = "cpu",
    engine_options: Annotated[str, typer.Option(help="More of the torch engine, JSON.")] = "{}",
    threads: Threads = DEFAULT_THREADS,
    out: Out = DEFAULT_OUT,
) -> None:
    """The torch engine against Hugging Face, vLLM and the floor.

    Each list is gone through with the first values of the others: `--tokens 132,64,1024 --beams
    20,50` measures 20 beams at each length, and 50 at 132 tokens.
    """
    if shape not in shapes.SHAPES:
        raise typer.BadParameter(f"no shape {shape!r}; there are {', '.join(shapes.SHAPES)}")
    settings = dict(locals())
    torch.set_num_threads(threads)
    loaded = shapes.load(shape, bundle)
    names = [TORCH, *[HUGGING_FACE] * hugging_face, *WITH_VLLM * vllm]
    cells, left_out = _fitting(_cells(tokens, beams, in_flight, grid), loaded)
    for cell in left_out:
        console.print(f"left out: a prompt of {cell.tokens} tokens, the model has room for fewer")
    setup = Setup(loaded, max(beams), device, json.loads(engine_options))
    outcomes = measure(setup, names, cells, rounds=rounds, patience=patience, returning=returning)
    for outcome in track(outcomes * 2, "measuring the floor", transient=True):
        outcome.floor = _floor(outcome, setup)  # the second time better, if the first was disturbed
    rows = [row for outcome in outcomes for row in outcome.rows()]
    label = f"engine-{loaded.name}{'-returning' if returning else ''}"
    _print(rows, f"{loaded.name} {loaded.version}, {threads} threads, {device}")
    write_json(out, label, machine=describe(device), settings=settings, rows=rows)
    engine_plot.draw(rows, out, label)


def measure(
    setup: Setup,
    names: Sequence[str],
    cells: Sequence[Cell],
    *,
    rounds: int,
    patience: float,
    returning: bool = False,
) -> list[Outcome]:
    """Every cell, in each all contestants in turn, every round on prompts of its own.

    With `returning` a contestant is asked each prompt without its last item first, which does not
    count: whoever keeps what it has computed may use it.
    """
    outcomes: list[Outcome] = []
    tired: list[tuple[str, Cell]] = []
    with ExitStack() as stack:
        searches = {
            name: contestants.start(name, setup, stack) for name in track(names, "starting")
        }
        for cell in cells:
            count = rounds if cell.in_flight == 1 else max(3, rounds // 3)
            total = cell.in_flight * (count + 2)
            asked = shapes.prompts(setup.bundle, cell.tokens, total)
            batches = [asked[i :: count + 2] for i in range(count + 2)]
            before: list[Any] = []
            if returning:
                asked = shapes.prompts(setup.bundle, cell.tokens, total, before_last=True)
                before = [asked[i :: count + 2] for i in range(count + 2)]
            fresh = {
                name: search
                for name, search in searches.items()
                if not any(name == other and cell.at_least(seen) for other, seen in tired)
            }
            awake = _warmed_up(fresh, batches[-2:], cell.beams, patience)
            tired += [(name, cell) for name in fresh if name not in awake]
            taken = alternate(
                {
                    name: _round(search, batches, before, cell.beams)
                    for name, search in awake.items()
                },
                count,
                warm_up=0,
                title=f"{cell.tokens} tokens, {cell.beams} beams, {cell.in_flight} in flight",
            )
            outcomes.append(
                Outcome(
                    cell,
                    {name: [seconds for seconds, _ in taken[name]] for name in awake},
                    {name: [answers for _, answers in taken[name]] for name in awake},
                    {
                        name: search.size(batches[0], cell.beams)
                        for name, search in awake.items()
                        if isinstance(search, BestBatch)
                    },
                )
            )
    return [outcome for outcome in outcomes if outcome.seconds]


def _round(search: Search, batches: Sequence[Any], before: Sequence[Any], beams: int) -> Any:
    def ask(number: int) -> Any:
        if before:
            search(before[number], beams)
        return search(batches[number], beams)

    return ask


def _warmed_up(
    searches: Mapping[str, Search], batches: Sequence[Any], beams: int, patience: float
) -> dict[str, Search]:
    """Those that were quick enough on their first go; the quick ones go twice."""
    awake = {}
    for name, search in searches.items():
        seconds, _ = search(batches[0], beams)
        if seconds < _QUICK_S:
            seconds, _ = search(batches[1], beams)
        if seconds <= patience:
            awake[name] = search
    return awake


def _cells(tokens: Ints, beams: Ints, in_flight: Ints, grid: bool) -> list[Cell]:
    every = [Cell(t, b, f) for t in tokens for b in beams for f in in_flight]
    if grid:
        return every
    first = Cell(tokens[0], beams[0], in_flight[0])
    return [
        cell
        for cell in every
        if (cell.tokens != first.tokens)
        + (cell.beams != first.beams)
        + (cell.in_flight != first.in_flight)
        <= 1
    ]


def _fitting(cells: Sequence[Cell], bundle: Bundle) -> tuple[list[Cell], list[Cell]]:
    """Cells whose prompts the model has room for, and the others."""
    fits = [cell for cell in cells if cell.tokens <= bundle.max_prompt_tokens]
    return fits, [cell for cell in cells if cell not in fits]


def _floor(outcome: Outcome, setup: Setup) -> list[Floor]:
    """Of the prompts as they were asked, and the beams as they grew."""
    cell, bundle = outcome.cell, setup.bundle
    batch = shapes.prompts(bundle, cell.tokens, cell.in_flight)
    known = [answers for answers in outcome.answers.get(TORCH, []) if answers]
    answers = known[-1] if known else [[]] * cell.in_flight
    rows = [
        sum(rows_at(bundle.trie, depth, cell.beams, answer) for answer in answers)
        for depth in range(1, bundle.trie.depth)
    ]
    phases = plan(Sizes.load(bundle.model_path), [len(prompt) for prompt in batch], rows)
    return floor(phases, setup.device, setup.dtype)


def _agreement(found: Sequence[Answers], expected: Sequence[Answers]) -> dict[str, float]:
    """Shares of the queries with the same SIDs in the same order, and of the beams in common."""
    pairs = [
        (ours, theirs)
        for mine, yours in zip(found, expected, strict=True)
        if mine and yours
        for ours, theirs in zip(mine, yours, strict=True)
    ]
    if not pairs:
        return {}
    return {
        "same_order": sum(ours == theirs for ours, theirs in pairs) / len(pairs),
        "same_beams": sum(len(set(a) & set(b)) / max(len(b), 1) for a, b in pairs) / len(pairs),
    }


def _print(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """A table for each cell, with the floor as its last row."""
    columns = ("", "ms", "quartiles", "answers/s", "over torch", "over floor", "same SIDs")
    for (tokens, beams, flight), own in groupby(
        rows, lambda row: (row["tokens"], row["beams"], row["in_flight"])
    ):
        cell, lines = list(own), []
        for row in cell:
            spread = Spread(**row["seconds"]).scaled(1e3)
            lines.append(
                [
                    row["contestant"]
                    + (f", {row['batch_size']} at once" if (row["batch_size"] or 1) > 1 else ""),
                    digits(spread.median),
                    f"{digits(spread.low)} to {digits(spread.high)}",
                    digits(row["per_second"]),
                    str(Spread(**row["over_torch"])) if "over_torch" in row else "",
                    f"{row['time_over_floor']:.2f}",
                    f"{row['same_order']:.0%}" if "same_order" in row else "",
                ]
            )
        least = row["floor_seconds"]
        lines.append(["floor", digits(least * 1e3), "", digits(flight / least), "", "1.00", ""])
        heading = f"{title}: {tokens} tokens, {beams} beams, {flight} in flight"
        print_table(heading, columns, lines)
        phases = ", ".join(
            f"{p['phase']} {digits(max(p['arithmetic'], p['memory']) * 1e3)} ms by"
            f" {'arithmetic' if p['arithmetic'] >= p['memory'] else 'memory'}"
            for p in row["floor_phases"]
        )
        console.print(f"floor: {phases}")
        if min(row["time_over_floor"] for row in cell) < 1:
            console.print(
                "faster than its floor, which is that of fp32 products: the weights are smaller, or"
                " something slowed its measuring down"
            )
        console.print()
