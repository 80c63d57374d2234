"""Twenty beams in vLLM's hands and in ours: latency of one query, throughput of sixteen at once.

The same model and prompts for all, in one run: `LLM.beam_search` in vLLM's default layout (its
engine in a process of its own) and inside its caller's process, our engine on vLLM, the torch
engine, and Hugging Face `generate`. vLLM's own search knows no constraint, so it is spared that
work; all others find real SIDs only. Each contestant runs in a fresh process.

    python -m bench.vllm [--bundle FOLDER] [--tokens 132] [--beams 20] [--threads 2]
    python -m bench.vllm --profile    where our engine's time goes, by cProfile
"""

import argparse
import cProfile
import json
import os
import pstats
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bench.engine import prompts
from bench.hugging_face import HuggingFaceSearch
from model_store.bundle import Bundle
from service.engine import Query, create_engine
from service.settings import Settings

Prompts = Sequence[list[int]]
Search = Callable[[Prompts], object]

AT_ONCE = 16
NAMES = {
    "stock": "vLLM beam_search, default layout",
    "stock-inproc": "vLLM beam_search, in-process",
    "vllm": "our engine on vLLM",
    "torch": "torch engine",
    "hf": "Hugging Face generate",
}


def contestant(name: str, bundle: Bundle, beams: int, stack: ExitStack) -> Search:
    """A search over prompts that returns when all of them are answered."""
    if name == "hf":
        model = HuggingFaceSearch.of(bundle)
        return lambda asked: [model.search(prompt, beams) for prompt in asked]
    if name.startswith("stock"):
        return _stock(name, bundle, beams)
    engine = stack.enter_context(create_engine(name, bundle))
    return lambda asked: engine.search_batch([Query(prompt, beams) for prompt in asked])


def _stock(name: str, bundle: Bundle, beams: int) -> Search:
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = str(int(name == "stock"))
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    from vllm import LLM
    from vllm.sampling_params import BeamSearchParams

    llm = LLM(
        str(bundle.model_path),
        dtype="float32",
        enforce_eager=True,
        max_logprobs=2 * beams,
        max_model_len=bundle.max_length,
    )
    search = BeamSearchParams(beam_width=beams, max_tokens=4, temperature=0.0, ignore_eos=True)

    def run(asked: Prompts) -> Any:
        return llm.beam_search([{"prompt_token_ids": prompt} for prompt in asked], search)

    return run


def measure(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of a query by itself, and answers a second with `AT_ONCE` handed in together."""
    bundle = Bundle.load(options.bundle)
    asked = prompts(bundle, options.tokens, options.queries + AT_ONCE * options.rounds + 4, seed=20)
    with ExitStack() as stack:
        search = contestant(name, bundle, options.beams, stack)
        for prompt in (asked.pop() for _ in range(4)):  # warm-up
            search([prompt])
        alone = [_seconds(search, [asked.pop()]) for _ in range(options.queries)]
        together = [
            _seconds(search, [asked.pop() for _ in range(AT_ONCE)]) for _ in range(options.rounds)
        ]
    return {
        "ms": statistics.median(alone) * 1e3,
        "low": statistics.quantiles(alone, n=4)[0] * 1e3,
        "high": statistics.quantiles(alone, n=4)[2] * 1e3,
        "per_second": AT_ONCE / statistics.median(together),
    }


def _seconds(search: Search, asked: Prompts) -> float:
    started = time.perf_counter()
    search(asked)
    return time.perf_counter() - started


def profile(options: argparse.Namespace) -> None:
    """Shares of a query's time: the model, vLLM around it, and our own code."""
    from service.engine.vllm.core import Core
    from service.engine.vllm.driver import Driver
    from service.engine.vllm.levels import LevelCodes
    from service.engine.vllm.options import engine_args
    from service.engine.vllm.task import Task

    bundle = Bundle.load(options.bundle)
    core = Core(engine_args(bundle, {}))
    driver = Driver(core, bundle.trie, LevelCodes(bundle.level_tokens))

    def search(asked: Prompts) -> None:
        driver.start([Task(Query(prompt, options.beams)) for prompt in asked])
        while driver.rows:
            driver.step()

    table = Table(title="share of the time (under the profiler)")
    for column in ("queries at once", "model", "vLLM around it", "our mask", "our other code"):
        table.add_column(column, justify="right")
    for at_once in (1, AT_ONCE):
        asked = prompts(bundle, options.tokens, 2 * at_once * options.rounds, seed=21)
        batches = [asked[i : i + at_once] for i in range(0, len(asked), at_once)]
        for batch in batches[: options.rounds]:
            search(batch)
        profiler = cProfile.Profile()
        profiler.enable()
        for batch in batches[options.rounds :]:
            search(batch)
        profiler.disable()
        spent = _cumulative(profiler)
        whole = spent["search"]
        model, mask = spent["_model_forward"], spent["apply_mask"]
        theirs = spent["core_step"] + spent["add_request"] - model - mask
        shares = (model, theirs, mask, whole - model - theirs - mask)
        table.add_row(str(at_once), *(f"{share / whole:.0%}" for share in shares))
    core.close()
    Console().print(table)


def _cumulative(profiler: cProfile.Profile) -> dict[str, float]:
    """Seconds spent in and below the functions that divide our work from vLLM's."""
    names = {
        ("bench/vllm.py", "search"): "search",
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


def plot(results: dict[str, dict[str, float]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 3.5), sharey=True)
    names = [NAMES[name] for name in results]
    for axis, key, title in (
        (axes[0], "ms", "one query, ms (less is better)"),
        (axes[1], "per_second", f"{AT_ONCE} at once, answers a second"),
    ):
        bars = axis.barh(names, [result[key] for result in results.values()], color="#4477aa")
        axis.bar_label(bars, fmt="%.1f", padding=3)
        axis.set_title(title)
        axis.margins(x=0.15)
    axes[0].invert_yaxis()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, default=Settings.model_fields["bundle"].default)
    parser.add_argument("--tokens", type=int, default=132)
    parser.add_argument("--beams", type=int, default=20)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=NAMES, nargs="*", default=list(NAMES))
    parser.add_argument("--plot", type=Path, default=Path("bench/out/vllm.png"))
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--child", choices=NAMES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.profile:
        profile(options)
    elif options.child:
        print("RESULT", json.dumps(measure(options.child, options)), flush=True)
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    console, results = Console(), {}
    for name in options.only:
        console.print(f"measuring {NAMES[name]} …")
        command = [sys.executable, "-m", "bench.vllm", *sys.argv[1:], "--child", name]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        lines = [line for line in output.stdout.splitlines() if line.startswith("RESULT")]
        if not lines:
            console.print(f"{NAMES[name]} failed with status {output.returncode}")
            continue
        results[name] = json.loads(lines[0].removeprefix("RESULT"))
    ours = results.get("vllm")
    table = Table(
        title=f"{options.tokens} tokens, {options.beams} beams, {options.threads} threads"
    )
    columns = ("", "one query ms", "quartiles", "÷ ours", f"{AT_ONCE} at once, a second", "ours ÷")
    for column in columns:
        table.add_column(column, justify="right")
    for name, result in results.items():
        slower, gain = ("", "")
        if ours is not None:
            slower = f"{result['ms'] / ours['ms']:.1f}"
            gain = f"{ours['per_second'] / result['per_second']:.1f}"
        table.add_row(
            NAMES[name],
            f"{result['ms']:.1f}",
            f"{result['low']:.1f} to {result['high']:.1f}",
            slower,
            f"{result['per_second']:.1f}",
            gain,
        )
    console.print(table)
    plot(results, options.plot)


if __name__ == "__main__":
    main()
