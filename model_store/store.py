"""A store keeps bundles as `name/version/`, numbered from 1. A version appears all at once.

    store/shop/1/                     a bundle
    store/shop/2/
    store/shop/aliases/champion.json  which of them is the champion, and which were before

`sidrec serve` and everything else that reads bundles needs the folder of a version only; aliases
say which. `remote` does the same on object stores.
"""

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from pydantic import ValidationError

from model_store.adapters import ADAPTER_FILES, ADAPTERS
from model_store.blend import Blend
from model_store.bundle import (
    CATALOGUE,
    MANIFEST,
    MODEL,
    Manifest,
    file_entries,
    read_tokenizer,
    validate,
)
from model_store.catalogue import Catalogue, check_items, read_json_lines
from model_store.errors import BundleError
from model_store.neighbours import NEIGHBOURS
from model_store.prompt import PromptTemplate
from model_store.sid import infer_spec
from model_store.versions import Location, Versions

_MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
)
_ABANDONED_S = 24 * 3600
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


class Store(Versions[Path]):
    """Versions of bundles below one local folder."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        super().__init__(LocalFileSystem(), str(self.root.absolute()))

    def path(self, name: str, version: int) -> Path:
        return self.root / name / str(version)

    locate = path

    def fetch(self, reference: str) -> Path:
        return self.path(*self.resolve(reference))

    def publish(self, manifest: Manifest, fill: Callable[[Path], None]) -> Path:
        self.root.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=self.root))
        try:
            staging.chmod(0o755)
            fill(staging)
            while True:
                version = self._next_version(manifest.name)
                stage(staging, manifest, version)
                self.path(manifest.name, version).parent.mkdir(exist_ok=True)
                try:
                    os.rename(staging, self.path(manifest.name, version))
                except OSError:
                    if not self.path(manifest.name, version).exists():
                        raise
                    continue  # another publisher took the number
                return self.path(manifest.name, version)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise

    def collect(self, name: str, *, keep: int = 3) -> list[int]:
        """Removes versions that nobody needs, and returns their numbers.

        Kept are the newest `keep` (at least one, so that no number is given twice), whatever an
        alias names, and what a rollback of it would go back to. A promotion at the same time comes
        before, and its version stays, or after, and is refused. A version leaves by one rename, so
        no reader sees half of one; files that a reader has open stay readable.
        """
        with self._lock(name):
            states = self.aliases(name).values()
            needed = {v for state in states for v in (state.version, state.previous)}
            versions = self.versions(name)
            gone = [v for v in versions[: -max(keep, 1)] if v not in needed]
            for version in gone:
                trash = Path(tempfile.mkdtemp(prefix=".trash-", dir=self.root))
                os.rename(self.path(name, version), trash / str(version))
        self._sweep()
        return gone

    def _sweep(self) -> None:
        """Deletes what was thrown away, and what publishers that were killed left behind."""
        for trash in self.root.glob(".trash-*"):
            shutil.rmtree(trash, ignore_errors=True)
        for staging in self.root.glob(".staging-*"):
            touched = [f.stat().st_mtime for f in (staging, *staging.rglob("*")) if f.exists()]
            if touched and max(touched) < time.time() - _ABANDONED_S:
                shutil.rmtree(staging, ignore_errors=True)

    def _next_version(self, name: str) -> int:
        """Behind every version there is, one that somebody left incomplete included."""
        taken = [int(f.name) for f in (self.root / name).glob("*") if f.name.isdecimal()]
        return max(taken, default=0) + 1

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        """One process at a time moves aliases of a bundle or removes versions of it. The lock
        belongs to an open file, so a process that dies gives it back."""
        folder = self.root / name
        if not folder.is_dir():  # nothing to guard, and nothing to leave behind
            yield
            return
        with (folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def stage(folder: Path, manifest: Manifest, version: int) -> None:
    """Completes a filled folder to a bundle: checksums, then the manifest, then every check.

    Raises `BundleError`.
    """
    complete = manifest.model_copy(update={"version": version, "files": file_entries(folder)})
    (folder / MANIFEST).write_text(complete.model_dump_json(indent=2) + "\n")
    if problems := validate(folder):
        raise BundleError(problems)


def create_bundle(
    store: Versions[Location],
    *,
    name: str,
    model: Path,
    items: Path,
    prompt: PromptTemplate,
    quantizer: Path | None = None,
    adapters: Path | None = None,
    blend: Blend | None = None,
    training: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    report: Path | None = None,
) -> Location:
    """Makes a bundle from a model folder in the Hugging Face layout and an items file.

    `items` is JSON lines with item_id, sid and any attributes; the rows of `blend` are its lines.
    The SID spec is read off the SIDs and the tokenizer's vocabulary. `adapters` has a folder for
    each scene with a LoRA adapter in PEFT's layout; where neither template nor items name scenes,
    these are the scenes. Returns the place of the new version; raises `BundleError` with every
    problem, or `SidError`, and then leaves nothing behind.
    """
    _check_model_folder(model)
    adapted = _check_adapters_folder(adapters) if adapters is not None else {}
    tokenizer = read_tokenizer(model)
    rows = list(read_json_lines(items))
    check_items(rows)
    spec = infer_spec([row["sid"] for row in rows], tokenizer.get_vocab())
    catalogue = Catalogue.from_items(rows, spec)
    if blend is not None and (problems := blend.neighbours.problems(len(rows))):
        raise BundleError(problems)
    if not prompt.scenes:
        prompt = prompt.model_copy(update={"scenes": tuple(catalogue.scenes or adapted)})

    def fill(folder: Path) -> None:
        (folder / MODEL).mkdir()
        for pattern in _MODEL_FILES + _TOKENIZER_FILES:
            for file in model.glob(pattern):
                shutil.copyfile(file, folder / MODEL / file.name)
        catalogue.write(folder / CATALOGUE)
        if blend is not None:
            places = [catalogue.row_of[row["item_id"]] for row in rows]
            blend.neighbours.moved(places).write(folder / NEIGHBOURS)
        if quantizer is not None:
            shutil.copytree(quantizer, folder / "quantizer")
        for scene, source in adapted.items():
            target = folder / ADAPTERS / scene
            target.mkdir(parents=True)
            for name in ADAPTER_FILES:
                shutil.copyfile(source / name, target / name)
        if report is not None:
            shutil.copytree(report, folder / "report")

    try:
        manifest = Manifest(
            name=name,
            version=1,
            created=datetime.now(UTC).replace(microsecond=0),
            sid=spec,
            prompt=prompt,
            blend=blend.spec if blend else None,
            training=dict(training or {}),
            metrics=dict(metrics or {}),
        )
    except ValidationError as error:
        raise BundleError([f"{e['loc'][0]}: {e['msg']}" for e in error.errors()]) from error
    return store.publish(manifest, fill)


def _check_model_folder(model: Path) -> None:
    """Raises `BundleError` for what a model folder lacks."""
    problems = [
        f"{model}: no {name}"
        for name in ("config.json", "tokenizer.json")
        if not (model / name).is_file()
    ]
    if not list(model.glob("*.safetensors")):
        pickles = sorted(p.name for p in model.glob("*.bin")) + sorted(
            p.name for p in model.glob("*.pt*")
        )
        hint = f" ({', '.join(pickles)} is a pickle: convert it)" if pickles else ""
        problems.append(f"{model}: no *.safetensors{hint}")
    index = model / "model.safetensors.index.json"
    if index.is_file():
        shards = set(json.loads(index.read_text())["weight_map"].values())
        problems += [f"{model}: no {s}" for s in sorted(shards) if not (model / s).is_file()]
    if problems:
        raise BundleError(problems)


def _check_adapters_folder(folder: Path) -> dict[str, Path]:
    """The folder of each scene's adapter. Raises `BundleError` for the files that they lack."""
    found = {path.name: path for path in sorted(folder.glob("*")) if path.is_dir()}
    problems = [] if found else [f"{folder}: no folder of an adapter in it"]
    for path in found.values():
        pickles = ", ".join(sorted(p.name for p in path.glob("*.bin")))
        hint = f" ({pickles} is a pickle: convert it)" if pickles else ""
        problems += [
            f"{path}: no {name}{hint if name.endswith('.safetensors') else ''}"
            for name in ADAPTER_FILES
            if not (path / name).is_file()
        ]
    if problems:
        raise BundleError(problems)
    return found
