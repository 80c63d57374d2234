"""One query at a time: the torch engine against Hugging Face `generate`, same model, same beams.

Both search the same prompts in turn, in one process on the same threads; their answers are
compared as they come. Printed are medians with quartiles, and the ratio pair by pair.

    python -m bench.engine [--bundle FOLDER] [--tokens 132] [--beams 20] [--threads 2]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.hugging_face import HuggingFaceSearch
from model_store.bundle import Bundle
from service.engine import Query, create_engine
from service.prompt import PromptBuilder
from service.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")


def prompts(bundle: Bundle, tokens: int, count: int, seed: int) -> list[list[int]]:
    """Prompts over random histories, as long as they can be without passing `tokens` tokens."""
    builder, rng = PromptBuilder(bundle), np.random.default_rng(seed)
    found = []
    for _ in range(count):
        rows = [int(row) for row in rng.integers(len(bundle.catalogue), size=tokens)]
        used = 1
        while len(builder.build(rows[: used + 1])[0]) <= tokens:
            used += 1
        found.append(builder.build(rows[:used])[0])
    return found


def timed(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[float, T]:
    """Milliseconds, and what came back."""
    started = time.perf_counter()
    value = work(*args, **kwargs)
    return (time.perf_counter() - started) * 1e3, value


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, default=Settings.model_fields["bundle"].default)
    parser.add_argument("--tokens", type=int, default=132)
    parser.add_argument("--beams", type=int, default=20)
    parser.add_argument("--queries", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    bundle = Bundle.load(options.bundle)
    asked = prompts(bundle, options.tokens, options.queries + 2, seed=20)
    slow, agree = HuggingFaceSearch.of(bundle), 0
    times: dict[str, list[float]] = {"Hugging Face": [], "torch engine": []}
    with create_engine("torch", bundle) as engine:
        for i, prompt in enumerate(track(asked, "queries")):
            theirs_ms, theirs = timed(slow.search, prompt, options.beams)
            ours_ms, [ours] = timed(engine.search_batch, [Query(prompt, options.beams)])
            if i < 2:  # warm-up
                continue
            times["Hugging Face"].append(theirs_ms)
            times["torch engine"].append(ours_ms)
            agree += [beam.codes for beam in ours] == [codes for codes, _ in theirs]

    table = Table(
        title=f"{bundle.name} {bundle.version}: one query, {len(asked[-1])} tokens,"
        f" {options.beams} beams, {options.threads} threads"
    )
    for column in ("", "median ms", "quartiles ms"):
        table.add_column(column, justify="right")
    for name, values in times.items():
        low, median, high = statistics.quantiles(values, n=4)
        table.add_row(name, f"{median:.1f}", f"{low:.1f} to {high:.1f}")
    console = Console()
    console.print(table)
    ratios = [a / b for a, b in zip(*times.values(), strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    console.print(f"Hugging Face over torch engine: {median:.1f} ({low:.1f} to {high:.1f})")
    console.print(f"same SIDs in the same order: {agree} of {options.queries}")


if __name__ == "__main__":
    main()
