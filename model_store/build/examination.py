"""The evaluation stage of a build: the trained model beside the baselines, and a report of it."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from model_store.blend import BlendSpec
from model_store.build.cold import measure_cold
from model_store.build.config import BuildConfig
from model_store.build.evaluate import FinderFor, Split
from model_store.build.evaluation import baselines, measure, write_freely, write_metrics
from model_store.build.files import Row
from model_store.build.model import Pretrained
from model_store.build.publish import model_name
from model_store.build.report import COLD, write_report
from model_store.build.results import Results
from model_store.build.rows import catalogue_rows, moved
from model_store.build.served import served_rankers
from model_store.report import metrics_table


def examine(
    config: BuildConfig, results: Results, finder_for: FinderFor, folder: Path, console: Console
) -> None:
    """Writes `metrics.json` (see `evaluation`) and `report/` into `folder`, and prints a table."""
    items, split = results.data()
    with TemporaryDirectory(prefix="sidrec-") as place:
        trial = Path(place)
        bundle = results.trial(trial, results.model, blend=results.blend)
        rankers = baselines(split, len(items), config.evaluate, config.neighbours)
        rankers |= served_rankers(config, results, finder_for, bundle, items, trial)
        found = measure(rankers, split, len(items))
        if config.evaluate.cold:
            name, strangers = model_name(config), config.split.kind == "users"
            found["cold"] = measure_cold(
                name, rankers[name], split, len(items), strangers=strangers
            )
        found |= write_freely(
            bundle,
            [moved(case, catalogue_rows(bundle, items)) for case in split.test],
            config.evaluate,
            max_history=config.train.max_history,
            titles=config.train.mix.sid_to_title > 0,
        )
    write_metrics(found, folder)
    write_report(
        folder / "report",
        name=config.name,
        facts=_facts(config, items, split, results.training, bundle.manifest.blend),
        found=found,
        losses=results.training["losses"],
        scores=results.training["scores"],
    )
    title = f"full ranking, {len(split.test):,} held-out targets"
    console.print(metrics_table(found["overall"], title))
    for kind, part in found.get("cold", {}).items():
        title = f"{COLD[kind]}, {part['cases']:,} targets"
        console.print(metrics_table(part["metrics"], title))


def _facts(
    config: BuildConfig,
    items: Sequence[Row],
    split: Split,
    training: dict[str, Any],
    blend: BlendSpec | None,
) -> dict[str, Any]:
    model, adapters = config.model, config.adapters
    facts = {
        "items": f"{len(items):,}",
        "users to learn from": f"{len(split.learn):,}",
        "events to learn from": f"{sum(len(user.items) for user in split.learn):,}",
        "cases": f"{len(split.test):,} ({config.split.kind})",
        "items of the history": f"{'in no' if config.evaluate.exclude_seen else 'in any'} ranking",
        "model": model.base if isinstance(model, Pretrained) else "Qwen2 from scratch",
        "epochs": training["epochs"],
    }
    if adapters:
        facts["adapters"] = f"{', '.join(adapters.scenes)}; rank {adapters.rank}"
    if blend:
        facts["neighbours"] = f"{blend.weight:g} of the mixture"
    return facts
