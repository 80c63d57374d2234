"""What cheaper weights cost: beams and hits of a trained model in one type against another.

The same held-out cases are asked of the torch engine in each type. Compared are the beams (how many
of the same SIDs), the first item, and HR@10 and NDCG@10 against what the users took next.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.progress import track

from bench.machine import describe
from bench.report import OUT, print_table, write_json
from model_store.build.evaluate import metrics
from model_store.bundle import Bundle
from model_store.catalogue import read_json_lines
from service.engine import Beam, Query, create_engine
from service.prompt import PromptBuilder
from service.ranking import best_items
from service.settings import Settings

_AT_ONCE = 64
_CUT = 10


def agreement(
    cases: Annotated[
        Path,
        typer.Option(
            help="JSON lines: history and target, or a sequence whose last item is the target;"
            " perhaps a profile."
        ),
    ],
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")] = Settings.model_fields[
        "bundle"
    ].default,
    count: Annotated[int, typer.Option(min=1, help="Cases, drawn at random.")] = 2000,
    beams: Annotated[int, typer.Option(min=1, help="Beams of a search.")] = 20,
    dtypes: Annotated[str, typer.Option(help="Types; the first is the measure.")] = "float32,int8",
    threads: Annotated[int, typer.Option(min=1, help="Threads of one torch operation.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder of the JSON file.")] = OUT,
) -> None:
    """The same cases in several types of weights: shared beams, HR@10 and NDCG@10."""
    torch.set_num_threads(threads)
    served = Bundle.load(bundle)
    prompts, targets = _cases(served, list(read_json_lines(cases)), count)
    measure: list[list[Beam]] = []
    rows = []
    for dtype in dtypes.split(","):
        found = _search(served, dtype, prompts, beams)
        measure = measure or found
        ranked = [[row for row, _ in best_items(answer, _CUT)] for answer in found]
        rows.append({"dtype": dtype, "cases": len(found)} | compared(found, measure))
        rows[-1] |= {k: v for k, v in metrics(ranked, targets).items() if k.endswith("@10")}
    columns = [name for name in rows[0] if name != "cases"]
    print_table(
        f"{served.name} {served.version}: {len(prompts):,} cases, {beams} beams",
        columns,
        [[_text(row[name]) for name in columns] for row in rows],
    )
    write_json(
        out,
        f"agreement-{served.name}",
        machine=describe(),
        settings={"bundle": str(bundle), "cases": str(cases), "count": count, "beams": beams},
        rows=rows,
    )


def compared(
    found: Sequence[Sequence[Beam]], measure: Sequence[Sequence[Beam]]
) -> dict[str, float]:
    """Shares, averaged over the queries: of the SIDs of `measure` found too, and of those that
    come first."""
    shared, first = [], []
    for answer, right in zip(found, measure, strict=True):
        if right:
            sids = {beam.codes for beam in right}
            shared.append(len(sids & {beam.codes for beam in answer}) / len(sids))
            first.append(bool(answer) and answer[0].codes == right[0].codes)
    return {"same beams": float(np.mean(shared)), "same first": float(np.mean(first))}


def _cases(
    bundle: Bundle, rows: Sequence[dict[str, Any]], count: int
) -> tuple[list[list[int]], list[int]]:
    """Prompts, and the catalogue rows of what came next."""
    builder, row_of = PromptBuilder(bundle), bundle.catalogue.row_of
    prompts, targets = [], []
    for place in np.random.default_rng(20).permutation(len(rows))[:count]:
        row = rows[place]
        history = row.get("history") or row["sequence"][:-1]
        known = [row_of[item] for item in history if item in row_of]
        prompts.append(builder.build(known, row.get("profile", {}))[0])
        targets.append(row_of.get(row.get("target") or row["sequence"][-1], -1))
    return prompts, targets


def _search(
    bundle: Bundle, dtype: str, prompts: Sequence[list[int]], beams: int
) -> list[list[Beam]]:
    # Prompts of like length side by side, so that little of a batch's cache is padding.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    found: list[list[Beam]] = [[] for _ in prompts]
    with create_engine("torch", bundle, dtype=dtype) as engine:
        for start in track(range(0, len(order), _AT_ONCE), dtype):
            chosen = order[start : start + _AT_ONCE]
            answers = engine.search_batch([Query(prompts[i], beams) for i in chosen])
            for i, answer in zip(chosen, answers, strict=True):
                found[i] = answer
    return found


def _text(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
