"""The model of a build as it will be served: its bundle, and what its searches find."""

from collections.abc import Sequence
from pathlib import Path

from model_store.blend import Scored
from model_store.build.adapters import merge
from model_store.build.blend import blended
from model_store.build.config import BuildConfig
from model_store.build.evaluate import Case, Finder, FinderFor, Ranker, in_scenes
from model_store.build.files import Row
from model_store.build.publish import model_name
from model_store.build.results import Results
from model_store.build.rows import reordered
from model_store.bundle import Bundle


class Once:
    """A finder that does not search again for the cases that it was asked for last."""

    def __init__(self, finder: Finder) -> None:
        self._finder = finder
        self._cases: Sequence[Case] = ()
        self._found: Sequence[Scored] = ()

    def __call__(self, cases: Sequence[Case]) -> Sequence[Scored]:
        if self._cases != cases:
            self._cases, self._found = cases, self._finder(cases)
        return self._found


def served_finder(
    config: BuildConfig, results: Results, finder_for: FinderFor, base: Finder, trial: Path
) -> Finder:
    """What the model finds with its adapters, of which `base` knows nothing.

    Not every engine has adapters, so each is merged into a copy of the model, which all can run.
    """
    if config.adapters is None:
        return base

    def adapted(scene: str) -> Finder:
        merged = merge(results.model, results.adapter(scene), trial / f"model-{scene}")
        bundle = results.trial(trial, merged)
        return finder_for(bundle, exclude_seen=config.evaluate.exclude_seen)

    return in_scenes(base, {scene: adapted(scene) for scene in config.adapters.scenes})


def served_rankers(
    config: BuildConfig,
    results: Results,
    finder_for: FinderFor,
    bundle: Bundle,
    items: Sequence[Row],
    trial: Path,
) -> dict[str, Ranker]:
    """The model as it will be served and, where neighbours or adapters change it, as it is without
    the neighbours, and without either. Cases and rankings are in the order of `items`."""
    rule = {"exclude_seen": config.evaluate.exclude_seen}
    base = Once(finder_for(bundle, **rule))
    served = Once(served_finder(config, results, finder_for, base, trial))
    rankers = {model_name(config): blended(served, bundle.blend, **rule)}
    if bundle.blend:
        rankers["model alone"] = blended(served, None, **rule)
    if config.adapters:
        rankers["without adapters"] = blended(base, None, **rule)
    return {name: reordered(ranker, bundle, items) for name, ranker in rankers.items()}
