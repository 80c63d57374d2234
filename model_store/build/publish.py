"""The last stage: a numbered bundle in the store, and the champion's place if the rules say so."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from model_store.build.blend import read_blend
from model_store.build.config import BuildConfig
from model_store.build.gate import Metrics, judge
from model_store.build.ingest import ITEMS
from model_store.build.stages import Work
from model_store.store import create_bundle
from model_store.versions import Location, Versions


def publish(
    config: BuildConfig, work: Work, store: Versions[Location], console: Console
) -> Location:
    """Adds the bundle to the store, unless it is there, and promotes it if the rules hold."""
    training = json.loads((work.path("train") / "training.json").read_text())
    found = json.loads((work.path("evaluate") / "metrics.json").read_text())["overall"]
    told = {"data", "split", "sids", "model", "train", "adapters", "evaluate"}
    told |= {"neighbours", "blend"}
    part = config.model_dump(mode="json", include=told)
    part |= {"loss": training["losses"][-1], "seconds": training["seconds"]}
    asked = {"adapters": config.adapters, "blend": config.blend}
    stages = ["sids", "train", *(name for name, given in asked.items() if given), "evaluate"]
    part["build"] = work.digest(stages, config.prompt.model_dump(mode="json"))
    version = _version_of(store, config.name, part["build"])
    if version is None:
        make_bundle(
            config,
            work,
            store,
            work.path("train") / "model",
            adapters=work.path("adapters") if config.adapters else None,
            blend=read_blend(work.path("blend")) if config.blend else None,
            training=part,
            metrics=found,
            report=work.path("evaluate") / "report",
        )
        version = _version_of(store, config.name, part["build"])
        assert version is not None
    _promote(config, store, version, found, console)
    return store.locate(config.name, version)


def _promote(
    config: BuildConfig, store: Versions[Location], version: int, found: Metrics, console: Console
) -> None:
    """Moves the alias to a version that it has never named, if the rules hold."""
    name, settings = config.name, config.publish
    alias = store.aliases(name).get(settings.alias)
    if alias and any(step.version == version for step in alias.history):
        console.print(f"{name}@{version} is in the store, and was {settings.alias} before")
        return
    champion = store.manifest(name, alias.version).metrics if alias else None
    holds, lines = judge(settings.rules, model_name(config), found, champion)
    if holds:
        store.promote(name, version, settings.alias)
    verdict = "is now" if holds else "does not become"
    console.print(f"{name}@{version} {verdict} {settings.alias}: {'; '.join(lines)}")


def _version_of(store: Versions[Location], name: str, build: str) -> int | None:
    """The version that a build was published as."""
    versions = reversed(store.versions(name))
    made = (v for v in versions if store.manifest(name, v).training.get("build") == build)
    return next(made, None)


def make_bundle(
    config: BuildConfig, work: Work, store: Versions[Location], model: Path, **more: Any
) -> Location:
    """Publishes a model folder with the items, SIDs and prompt of a build; see `create_bundle`."""
    return create_bundle(
        store,
        name=config.name,
        model=model,
        items=work.path("sids") / ITEMS,
        prompt=config.prompt,
        quantizer=work.path("sids") / "quantizer" if config.sids else None,
        **more,
    )


def model_name(config: BuildConfig) -> str:
    """The name of the built model among the rankers."""
    return f"{config.name} model"
