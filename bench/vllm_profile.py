"""Where the time of our engine on vLLM goes, by cProfile: the model, vLLM, and our own code."""

import cProfile
import pstats
from collections.abc import Sequence
from typing import Annotated

import torch
import typer

from bench import shapes
from bench.machine import describe
from bench.options import DEFAULT_OUT, DEFAULT_THREADS, BundleFolder, Ints, Out, Threads, ints
from bench.report import COLOURS, figure, print_table, write_json
from service.engine import Query

Prompts = Sequence[Sequence[int]]

_PARTS = ("model", "vLLM around it", "our mask", "our other code")


def vllm_profile(
    bundle: BundleFolder = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of a prompt.")] = 132,
    beams: Annotated[int, typer.Option(min=1, help="Beams of a search.")] = 20,
    in_flight: Annotated[Ints, ints("Queries handed in together.")] = Ints((1, 16)),
    rounds: Annotated[int, typer.Option(min=1, help="Batches under the profiler.")] = 3,
    threads: Threads = DEFAULT_THREADS,
    out: Out = DEFAULT_OUT,
) -> None:
    """Shares of a query's time in our engine on vLLM."""
    settings = dict(locals())
    from service.engine.vllm.core import Core
    from service.engine.vllm.driver import Driver
    from service.engine.vllm.levels import LevelCodes
    from service.engine.vllm.options import engine_args
    from service.engine.vllm.task import Task

    torch.set_num_threads(threads)
    loaded = shapes.load("demo", bundle)
    core = Core(engine_args(loaded, {}))
    driver = Driver(core, loaded.trie, LevelCodes(loaded.level_tokens))

    def search(asked: Prompts) -> None:
        driver.start([Task(Query(prompt, beams)) for prompt in asked])
        while driver.rows:
            driver.step()

    rows = []
    for at_once in in_flight:
        asked = shapes.prompts(loaded, tokens, 2 * at_once * rounds, seed=21)
        batches = [asked[i : i + at_once] for i in range(0, len(asked), at_once)]
        for batch in batches[:rounds]:
            search(batch)
        profiler = cProfile.Profile()
        profiler.enable()
        for batch in batches[rounds:]:
            search(batch)
        profiler.disable()
        rows.append({"in_flight": at_once, **_shares(profiler)})
    core.close()
    lines = [[str(row["in_flight"]), *(f"{row[part]:.0%}" for part in _PARTS)] for row in rows]
    print_table("share of the time (under the profiler)", ("in flight", *_PARTS), lines)
    write_json(out, "vllm-profile", machine=describe(), settings=settings, rows=rows)
    with figure(out, "vllm-profile", 1, height=2.5) as [axis]:
        for part, colour in zip(_PARTS, COLOURS, strict=False):
            names = [f"{row['in_flight']} in flight" for row in rows]
            before = [sum(row[p] for p in _PARTS[: _PARTS.index(part)]) for row in rows]
            axis.barh(names, [row[part] for row in rows], left=before, color=colour, label=part)
        axis.legend(
            frameon=False, fontsize="small", ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1)
        )


def _shares(profiler: cProfile.Profile) -> dict[str, float]:
    spent = _cumulative(profiler)
    whole = spent["search"]
    model, mask = spent["_model_forward"], spent["apply_mask"]
    theirs = spent["core_step"] + spent["add_request"] - model - mask
    parts = (model, theirs, mask, whole - model - theirs - mask)
    return {name: part / whole for name, part in zip(_PARTS, parts, strict=True)}


def _cumulative(profiler: cProfile.Profile) -> dict[str, float]:
    """Seconds spent in and below the functions that divide our work from vLLM's."""
    names = {
        ("bench/vllm_profile.py", "search"): "search",
        ("gpu_model_runner.py", "_model_forward"): "_model_forward",
        ("vllm/mask.py", "apply"): "apply_mask",
        ("engine/core.py", "step"): "core_step",
        ("engine/core.py", "add_request"): "add_request",
    }
    found = dict.fromkeys(names.values(), 0.0)
    for (file, _, function), row in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
        for (ending, name), key in names.items():
            if file.endswith(ending) and function == name and "sidrec" not in file:
                found[key] += row[3]
    return found
