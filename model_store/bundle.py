"""A bundle: one immutable folder with everything that a model needs to answer.

    manifest.json      format, name, version, SID spec, prompt template, checksums; written last
    model/             Hugging Face layout: config.json, *.safetensors, tokenizer.json
    catalogue.parquet  the items, in the order of their SIDs
    neighbours.parquet optional: what stands beside what in histories, to blend with the model
    quantizer/         optional: how a new item gets its SID
    adapters/          optional: LoRA adapters of the model, `adapters/<scene>/` in PEFT's layout
    report/            optional: how good the model was found to be, for people

Loading checks all of it and reports every problem found, one line each; a bundle with a problem
is never served. Pickles are refused, because loading one runs it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tokenizers import Tokenizer

from model_store.adapters import Adapter, read_adapters, tensor_shapes
from model_store.blend import Blend, BlendSpec
from model_store.catalogue import Catalogue
from model_store.errors import BundleError, SidError
from model_store.neighbours import NEIGHBOURS, Neighbours
from model_store.prompt import PromptTemplate
from model_store.sid import SidSpec, Trie, level_tokens

MANIFEST = "manifest.json"
CATALOGUE = "catalogue.parquet"
MODEL = "model"

_PICKLE_SUFFIXES = {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"}
_PICKLE_STARTS = {b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK"}
EMBEDDING = "model.embed_tokens.weight"


class FileEntry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    sha256: str


class Manifest(BaseModel):
    """The part of a bundle that says what the rest is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    version: int = Field(ge=1)
    created: datetime
    sid: SidSpec
    prompt: PromptTemplate
    blend: BlendSpec | None = None
    training: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    files: dict[str, FileEntry] = {}


@dataclass(frozen=True)
class Bundle:
    """A bundle that has passed every check. Make one with `Bundle.load`."""

    path: Path
    manifest: Manifest
    catalogue: Catalogue
    tokenizer: Tokenizer
    trie: Trie
    level_tokens: tuple[npt.NDArray[np.int64], ...]
    """Per level the vocabulary id of each code, shape (size,)."""
    max_length: int
    """Positions that the model has."""
    adapters: Mapping[str, Adapter]
    """By scene. A scene that is not here is answered by the model as it is."""
    blend: Blend | None = None
    """What is ranked beside the model, where anything is."""

    @classmethod
    def load(cls, path: str | Path) -> "Bundle":
        """Loads and checks the bundle in the folder `path`.

        Raises `BundleError` with one line for each problem.
        """
        bundle, problems = _examine(Path(path))
        if bundle is None or problems:
            raise BundleError(problems)
        return bundle

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def version(self) -> int:
        return self.manifest.version

    @property
    def spec(self) -> SidSpec:
        return self.manifest.sid

    @property
    def model_path(self) -> Path:
        return self.path / MODEL

    @property
    def max_prompt_tokens(self) -> int:
        """Longest prompt that leaves room for a SID."""
        return self.max_length - self.spec.depth

    @property
    def cold(self) -> bool:
        """Whether the model was trained to answer by profile and scene alone: as the template
        says, or because the build that trained it drew a share of cold starts."""
        match self.manifest.training:
            case {"train": {"cold_share": int() | float() as share}} if share > 0:
                return True
        return self.manifest.prompt.cold

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """Vocabulary ids by which the model says that a text is over; none where it says not."""
        for name in ("generation_config.json", "config.json"):
            file = self.model_path / name
            end = json.loads(file.read_text()).get("eos_token_id") if file.exists() else None
            if end is not None:
                return frozenset(end if isinstance(end, list) else [end])
        return frozenset()

    @cached_property
    def sids(self) -> list[str]:
        """The SID text of each catalogue row."""
        return [str(sid) for sid in self.spec.texts(self.catalogue.codes).to_pylist()]


def validate(path: str | Path) -> list[str]:
    """Every problem that keeps the bundle in `path` from being served; none if it may be."""
    return _examine(Path(path))[1]


def file_entries(folder: Path) -> dict[str, FileEntry]:
    """Size and checksum of each file below `folder`, the manifest aside."""
    return {
        name: FileEntry(size=(folder / name).stat().st_size, sha256=_sha256(folder / name))
        for name in sorted(_files(folder))
    }


def is_pickle(path: Path) -> bool:
    """Whether a file is a pickle, by its name or by its first bytes (protocol 2 and up; a zip
    archive is how PyTorch stores one)."""
    with path.open("rb") as file:
        start = file.read(9)
    # Safetensors begin with the length of their JSON header, which may look like anything.
    if path.suffix == ".safetensors" and start[8:] == b"{":
        return False
    return path.suffix.lower() in _PICKLE_SUFFIXES or start[:2] in _PICKLE_STARTS


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder. Raises `BundleError`."""
    try:
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises bare `Exception`
        raise BundleError([f"{folder.name}/tokenizer.json: {error}"]) from error


def _examine(path: Path) -> tuple[Bundle | None, list[str]]:
    """The bundle where it could be put together, and everything that is wrong with it."""
    manifest, problems = _read_manifest(path)
    if manifest is None:
        return None, problems
    problems = list(_file_problems(path, manifest))
    if problems:  # what follows would only repeat them in other words
        return None, problems
    try:
        catalogue = Catalogue.read(path / CATALOGUE)
        tokenizer = read_tokenizer(path / MODEL)
        max_length, vocabulary = _model_size(path / MODEL)
        blend = _blend(path, manifest)
    except BundleError as error:
        return None, error.problems
    tokens = level_tokens(manifest.sid, tokenizer.token_to_id)
    problems += catalogue.problems(manifest.sid)
    problems += blend.neighbours.problems(len(catalogue)) if blend else []
    problems += _token_problems(manifest.sid, catalogue, tokenizer, tokens) if not problems else []
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= vocabulary:
        problems.append(
            f"model: the weights have {vocabulary} tokens, the tokenizer goes up to id {largest}"
        )
    if max_length <= manifest.sid.depth:
        problems.append(f"model: {max_length} positions leave no room for a prompt and a SID")
    adapters, unusable = read_adapters(path, manifest.prompt.scenes, path / MODEL)
    problems += unusable
    if problems:
        return None, problems
    trie = Trie.build(catalogue.codes)
    return Bundle(
        path, manifest, catalogue, tokenizer, trie, tuple(tokens), max_length, adapters, blend
    ), []


def _read_manifest(path: Path) -> tuple[Manifest | None, list[str]]:
    if not path.is_dir():
        return None, [f"{path}: no such folder"]
    try:
        return Manifest.model_validate_json((path / MANIFEST).read_bytes()), []
    except FileNotFoundError:
        return None, [f"{MANIFEST} is missing: the bundle is incomplete"]
    except ValidationError as error:
        return None, [
            f"{MANIFEST}: {'.'.join(map(str, e['loc'])) or 'document'}: {e['msg']}"
            for e in error.errors()
        ]
    except SidError as error:
        return None, [f"{MANIFEST}: sid: {error}"]


def _file_problems(path: Path, manifest: Manifest) -> Iterator[str]:
    present = set(_files(path))
    needed = {CATALOGUE, f"{MODEL}/config.json", f"{MODEL}/tokenizer.json"}
    for name in sorted(present - set(manifest.files)):
        kind = (
            "a pickle, which is never loaded" if is_pickle(path / name) else "not in the manifest"
        )
        yield f"{name} is {kind}"
    for name in sorted(needed - set(manifest.files)):
        yield f"{name} is not in the manifest"
    for name, entry in manifest.files.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            yield f"{name} leaves the bundle's folder"
        elif name not in present:
            yield f"{name} is missing"
        elif is_pickle(path / name):
            yield f"{name} is a pickle, which is never loaded"
        elif (size := (path / name).stat().st_size) != entry.size:
            yield f"{name} has {size} bytes, the manifest says {entry.size}"
        elif (digest := _sha256(path / name)) != entry.sha256:
            yield f"{name} has the checksum {digest[:12]}…, the manifest says {entry.sha256[:12]}…"


def _blend(path: Path, manifest: Manifest) -> Blend | None:
    """Raises `BundleError` where a table and the manifest's word on it do not go together."""
    present = NEIGHBOURS in manifest.files
    if present != (manifest.blend is not None):
        lacks, has = (MANIFEST, NEIGHBOURS) if present else (NEIGHBOURS, MANIFEST)
        raise BundleError([f"{lacks} has nothing to blend, {has} has"])
    return Blend(manifest.blend, Neighbours.read(path / NEIGHBOURS)) if manifest.blend else None


def _token_problems(
    spec: SidSpec,
    catalogue: Catalogue,
    tokenizer: Tokenizer,
    tokens: list[npt.NDArray[np.int64]],
) -> list[str]:
    """Codes in use must be one token each; a code that no item has may lack its token."""
    found = []
    for i, level in enumerate(spec.levels):
        used = np.unique(catalogue.codes[:, i])
        texts = [level.token(int(code)) for code in used[used >= 0]]
        pieces = tokenizer.encode_batch(texts, add_special_tokens=False)
        split = [
            (text, piece.tokens)
            for text, piece, token in zip(texts, pieces, tokens[i][used[used >= 0]], strict=True)
            if piece.ids != [token]
        ]
        if split:
            text, parts = split[0]
            found.append(
                f"tokenizer: {len(split)} SID tokens of level {i + 1} are not one token each,"
                f" such as {text}, which becomes {parts}"
            )
    return found


def _model_size(folder: Path) -> tuple[int, int]:
    """Positions of the model, and rows of its embedding. Raises `BundleError`."""
    try:
        config = json.loads((folder / "config.json").read_text())
        positions = int(config["max_position_embeddings"])
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError([f"{MODEL}/config.json: {error!r}"]) from error
    shapes = tensor_shapes(folder)
    if EMBEDDING not in shapes:
        raise BundleError([f"{MODEL}: no *.safetensors with {EMBEDDING}"])
    return positions, shapes[EMBEDDING][0]


def _files(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file() and path != folder / MANIFEST:
            yield path.relative_to(folder).as_posix()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
