"""Versions and aliases of bundles, wherever they lie: `root/name/3/`, `root/name/aliases/champion`.

A version is there when its manifest is. An alias is a small JSON file with everything that was ever
done to it, replaced as a whole, so that a reader finds the old or the new state and nothing
between. This module moves names only; how a bundle gets in and out stands in `store` and `remote`.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, Literal, TypeVar
from uuid import uuid4

from fsspec import AbstractFileSystem
from pydantic import BaseModel, ConfigDict, ValidationError

from model_store.bundle import MANIFEST, Manifest
from model_store.errors import StoreError

CHAMPION = "champion"
ALIASES = "aliases"

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,63}")


class Step(BaseModel):
    """What was done to an alias, and which version it has named since."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Literal["promote", "rollback"]
    version: int
    at: datetime


class Alias(BaseModel):
    """A name for a version, with its history, oldest step first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    history: tuple[Step, ...]

    @property
    def version(self) -> int:
        return self.history[-1].version

    @property
    def previous(self) -> int | None:
        """What a rollback goes back to: each rollback takes back one promotion."""
        promoted: list[int] = []
        for step in self.history:
            if step.action == "promote":
                promoted.append(step.version)
            else:
                promoted.pop()
        return promoted[-2] if len(promoted) > 1 else None

    def then(self, action: Literal["promote", "rollback"], version: int) -> "Alias":
        step = Step(action=action, version=version, at=datetime.now(UTC).replace(microsecond=0))
        return Alias(history=(*self.history, step))


Location = TypeVar("Location")


class Versions(ABC, Generic[Location]):
    """The names, versions and aliases below the folder `root` of a file system."""

    def __init__(self, files: AbstractFileSystem, root: str) -> None:
        self._files = files
        self._root = root.rstrip("/")

    @property
    def address(self) -> str:
        """Where the store is, for people."""
        return self._root

    @abstractmethod
    def publish(self, manifest: Manifest, fill: Callable[[Path], None]) -> Location:
        """Adds the next version of `manifest.name` and says where it is: `fill` writes its files
        into a folder.

        The manifest is completed (version, checksums) and written last, the whole is validated,
        and only then appears. Raises `BundleError` and leaves nothing visible otherwise.
        """

    @abstractmethod
    def locate(self, name: str, version: int) -> Location:
        """Where a version is, or would be."""

    @abstractmethod
    def fetch(self, reference: str) -> Path:
        """A local folder with the bundle of a reference such as `shop@champion`.

        Raises `StoreError` where there is none, `BundleError` where it does not arrive whole.
        """

    def names(self) -> list[str]:
        """Bundles of which there is a complete version."""
        return [name for name in self._entries("") if _NAME.fullmatch(name) and self.versions(name)]

    def versions(self, name: str) -> list[int]:
        """Complete versions of a bundle, ascending."""
        numbers = sorted(int(entry) for entry in self._entries(name) if entry.isdecimal())
        return [n for n in numbers if self._files.exists(self._at(name, str(n), MANIFEST))]

    def manifest(self, name: str, version: int) -> Manifest:
        """The manifest of a version. Raises `StoreError` where there is none that can be read."""
        path = self._at(name, str(version), MANIFEST)
        try:
            return Manifest.model_validate_json(self._files.cat_file(path))
        except (FileNotFoundError, ValidationError) as error:
            raise StoreError(f"{path}: {error}") from error

    def aliases(self, name: str) -> dict[str, Alias]:
        """Every alias of a bundle. Raises `StoreError` for one that cannot be read."""
        found = [entry.removesuffix(".json") for entry in self._entries(f"{name}/{ALIASES}")]
        read = {alias: self._read(name, alias) for alias in found if _ALIAS.fullmatch(alias)}
        return {alias: state for alias, state in read.items() if state}

    def resolve(self, reference: str) -> tuple[str, int]:
        """Name and version of `name@3`, `name@champion` or `name`, which means the newest.

        Raises `StoreError` where there is no such bundle, version or alias.
        """
        name, at, wanted = reference.partition("@")
        _check(name, _NAME, "name of a bundle")
        versions = self.versions(name)
        if not versions:
            raise StoreError(f"there is no bundle {name!r}")
        if not at:
            return name, versions[-1]
        version = int(wanted) if wanted.isdecimal() else self._aliased(name, wanted)
        if version not in versions:
            raise StoreError(f"{name} has no version {version}, only {_listed(versions)}")
        return name, version

    def promote(self, name: str, version: int, alias: str = CHAMPION) -> Alias:
        """Lets `alias` name a version. Raises `StoreError` where there is no such version."""
        _check(alias, _ALIAS, "name of an alias")
        with self._lock(name):
            self.resolve(f"{name}@{version}")
            before = self._read(name, alias) or Alias(history=())
            if before.history and before.version == version:
                return before
            return self._write(name, alias, before.then("promote", version))

    def rollback(self, name: str, alias: str = CHAMPION) -> Alias:
        """Lets `alias` name what it named before its last promotion. Raises `StoreError` where
        there was nothing, or where that version is gone."""
        with self._lock(name):
            before = self._read(name, alias)
            if before is None:
                raise StoreError(f"{name} has no alias {alias!r}")
            if before.previous is None:
                raise StoreError(f"{name}@{alias} has never named another version")
            self.resolve(f"{name}@{before.previous}")
            return self._write(name, alias, before.then("rollback", before.previous))

    def _aliased(self, name: str, alias: str) -> int:
        state = self._read(name, alias) if _ALIAS.fullmatch(alias) else None
        if state is None:
            raise StoreError(f"{name} has no alias {alias!r}, only {_listed(self.aliases(name))}")
        return state.version

    def _read(self, name: str, alias: str) -> Alias | None:
        path = self._at(name, ALIASES, f"{alias}.json")
        try:
            return Alias.model_validate_json(self._files.cat_file(path))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise StoreError(f"{path}: not an alias: {error.errors()[0]['msg']}") from error

    def _write(self, name: str, alias: str, state: Alias) -> Alias:
        text = state.model_dump_json(indent=2) + "\n"
        self._replace(self._at(name, ALIASES, f"{alias}.json"), text.encode())
        return state

    def _replace(self, path: str, content: bytes) -> None:
        """Writes a file that no reader ever sees in part."""
        folder, _, name = path.rpartition("/")
        self._files.makedirs(folder, exist_ok=True)
        part = f"{folder}/.{name}-{uuid4().hex}"
        self._files.pipe_file(part, content)
        self._files.mv(part, path)

    def _entries(self, folder: str) -> Iterator[str]:
        """Names of what lies in a folder; none where there is no such folder."""
        try:
            found = self._files.ls(self._at(folder) if folder else self._root, detail=False)
        except FileNotFoundError:
            return iter(())
        return (str(path).rstrip("/").rpartition("/")[2] for path in sorted(found))

    def _at(self, *parts: str) -> str:
        return "/".join((self._root, *parts))

    def _lock(self, name: str) -> AbstractContextManager[object]:
        """Keeps others from moving the aliases of a bundle. Nothing of the kind exists for a
        bucket: there the last of two promotions at the same moment wins."""
        return nullcontext()


def _check(text: str, pattern: re.Pattern[str], what: str) -> None:
    if not pattern.fullmatch(text):
        raise StoreError(f"{text!r} is not the {what}")


def _listed(values: "list[int] | dict[str, Alias]") -> str:
    return ", ".join(map(str, values)) or "none"
