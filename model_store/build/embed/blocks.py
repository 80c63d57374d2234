"""Embeds a whole catalogue so that an interruption costs one block of it."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.progress import track

from model_store.build.embed.base import Embedder, Vectors
from model_store.errors import BuildError

BLOCK = 1024
"""Texts in a file: enough of them for batches of like length."""


def embed_in_blocks(embedder: Embedder, texts: Sequence[str], folder: Path) -> Vectors:
    """Shape (texts, dimensions). Blocks that lie in `folder` from an earlier run are not embedded
    again; those of other texts or of another embedder stand below another name."""
    about = json.dumps([embedder.about(), list(texts)]).encode()
    blocks = folder / hashlib.sha256(about).hexdigest()[:16]
    blocks.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(texts), BLOCK)
    for start in track(starts, "embedding", transient=True):
        path = _path(blocks, start)
        if not path.exists():
            part = path.with_suffix(".part")
            with part.open("wb") as file:
                np.save(file, embedder.embed(texts[start : start + BLOCK]))
            os.replace(part, path)
    return np.concatenate([_read(_path(blocks, start)) for start in starts])


def _path(folder: Path, start: int) -> Path:
    return folder / f"{start:09}.npy"


def _read(path: Path) -> Vectors:
    try:
        return np.asarray(np.load(path, allow_pickle=False), np.float32)
    except (ValueError, EOFError) as error:
        raise BuildError(f"{path} holds no vectors; remove it to have it made anew") from error
