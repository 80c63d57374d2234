"""What changed between two bundles: SID spec, prompt, items, metrics."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_store.bundle import CATALOGUE, MANIFEST, Manifest
from model_store.catalogue import Catalogue
from model_store.errors import BundleError


@dataclass(frozen=True)
class Difference:
    """`settings`: what of the SID spec and the prompt changed, old and new, by dotted name.
    `moved`: items whose SID changed, old and new SID by item id.
    `metrics`: all of them, old and new, `None` where one side was not measured."""

    settings: dict[str, tuple[Any, Any]]
    added: list[str]
    removed: list[str]
    moved: dict[str, tuple[str, str]]
    kept: int
    metrics: dict[str, tuple[Any, Any]]


def compare_bundles(old: Path, new: Path) -> Difference:
    """Compares two bundle folders. Raises `BundleError` where one cannot be read."""
    before, after = _manifest(old), _manifest(new)
    old_sids, new_sids = (_sids(path, manifest) for path, manifest in ((old, before), (new, after)))
    settings = _sides(_flat(_settings(before)), _flat(_settings(after)))
    both = [item for item in old_sids if item in new_sids]
    return Difference(
        settings={name: pair for name, pair in settings.items() if pair[0] != pair[1]},
        added=[item for item in new_sids if item not in old_sids],
        removed=[item for item in old_sids if item not in new_sids],
        moved={i: (old_sids[i], new_sids[i]) for i in both if old_sids[i] != new_sids[i]},
        kept=len(both),
        metrics=_sides(_flat(before.metrics), _flat(after.metrics)),
    )


def _manifest(folder: Path) -> Manifest:
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        raise BundleError([f"{folder}: {error}"]) from error


def _sids(folder: Path, manifest: Manifest) -> dict[str, str]:
    catalogue = Catalogue.read(folder / CATALOGUE)
    texts = manifest.sid.texts(catalogue.codes).to_pylist()
    return dict(zip(catalogue.item_ids, texts, strict=True))


def _settings(manifest: Manifest) -> dict[str, Any]:
    return manifest.model_dump(mode="json", include={"sid", "prompt"})


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Leaves of nested objects and lists, by dotted name."""
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list) and value:
        inner = {str(i): entry for i, entry in enumerate(value)}.items()
    else:
        return {name: value} if name else {}
    return {
        leaf: found
        for key, entry in inner
        for leaf, found in _flat(entry, f"{name}.{key}" if name else key).items()
    }


def _sides(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (old.get(name), new.get(name)) for name in dict.fromkeys([*old, *new])}
