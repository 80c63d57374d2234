"""Stores with versions that are alike but for what a test does to them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model_store.bundle import MANIFEST, Bundle, Manifest, file_entries
from model_store.store import Store

Edit = Callable[[Path], Any]


def copied(versions: tuple[Bundle, ...], root: Path) -> Store:
    """A store of its own with these versions, the first one champion."""
    for bundle in versions:
        shutil.copytree(bundle.path, root / bundle.name / str(bundle.version))
    store = Store(root)
    store.promote(versions[0].name, versions[0].version)
    return store


def with_version(store: Store, like: Bundle, number: int, edit: Edit) -> Path:
    """Adds a version like another, edited, whose checksums are right."""
    folder = store.path(like.name, number)
    shutil.copytree(like.path, folder)
    edit(folder)
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    changed = {"version": number, "files": file_entries(folder)}
    (folder / MANIFEST).write_text(manifest.model_copy(update=changed).model_dump_json())
    return folder
