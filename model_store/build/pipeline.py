"""From a configuration to a published bundle, stage by stage; `stages` says when one is redone.

ingest    items and clicks, checked and split              ingest.py, clicks.py, split.py
sids      text → embedding → residual quantisation         embed/, sids/
dataset   the tokenizer, and the tasks as text             tokenizer.py, tasks.py
train     a small model from scratch, or fine-tuning       model.py, train.py
adapters  a LoRA adapter for each scene, where asked for   adapters.py
blend     neighbours beside the model, where asked for      blend.py
evaluate  HR and NDCG beside the baselines, a report       examination.py, evaluation.py
publish   a numbered bundle; the champion, if rules hold   publish.py, gate.py
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from model_store.build.config import BuildConfig
from model_store.build.disk import disk_errors
from model_store.build.evaluate import FinderFor
from model_store.build.publish import publish
from model_store.build.stages import Work
from model_store.build.steps import Steps
from model_store.errors import BuildError
from model_store.versions import Location, Versions

PUBLISH = "publish"


def build(
    config: BuildConfig, store: Versions[Location], work: Path, finder_for: FinderFor
) -> Location:
    """Runs every stage that is not fresh and returns the place of the published version.

    `work` keeps the files of the stages; `finder_for` searches through a serving engine.
    Raises `BuildError` for unusable input, `BundleError` for a bundle that could not be served.
    """
    place = run_stages(config, store, work, finder_for)
    assert place is not None
    return place


def run_stages(
    config: BuildConfig,
    store: Versions[Location],
    work: Path,
    finder_for: FinderFor,
    only: Sequence[str] = (),
) -> Location | None:
    """`build`, or only the named stages of it; `None` where `publish` is not one of them."""
    console = Console()
    disable_progress_bar()  # of transformers, which would be drawn across ours
    console.rule(f"[bold]{config.name}")
    made = Work(work, console)
    steps = Steps(config, made, finder_for, console)
    stages = steps.stages()
    names = [*(stage.name for stage in stages), PUBLISH]
    chosen = only or names
    if unknown := set(chosen) - set(names):
        raise BuildError(f"no stage {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    with made.locked():
        last = max(names.index(name) for name in chosen)
        made.run(stages[: last + 1], chosen)
        if PUBLISH not in chosen:
            return None
        with disk_errors(PUBLISH, store.address):
            return publish(config, made, store, console)
