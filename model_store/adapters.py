"""LoRA adapters of a bundle: `adapters/<scene>/`, one per scene, over the one base model.

    adapter_config.json         as PEFT writes it: rank, scale, target modules
    adapter_model.safetensors   the pairs A (rank, in) and B (out, rank) of the projections

Only pairs of the decoder's projections are taken. What an adapter does beside them (resized or
retrained embeddings, whole modules, biases, magnitudes) would either be lost or change the
vocabulary that the SIDs of all scenes share, so such an adapter is refused. This module knows the
files; which adapters an engine can run is the engine's to say.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open

from model_store.errors import BundleError

ADAPTERS = "adapters"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")

Shape = tuple[int, ...]
Rank = Annotated[int, Field(ge=1, strict=True)]

_PAIR = re.compile(
    r"base_model\.model\.(?P<module>model\.layers\.\d+"
    r"\.(?:self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj))\.lora_(?P<side>[AB])\.weight"
)
_VOCABULARY = re.compile(r"\.(?:embed_tokens|lm_head)\.")


@dataclass(frozen=True, slots=True)
class Adapter:
    """One that has passed every check; `rank` is the largest of its pairs."""

    path: Path
    rank: int


class _Config(BaseModel):
    """What matters of `adapter_config.json`; PEFT writes much more."""

    model_config = ConfigDict(extra="ignore")

    peft_type: Literal["LORA"]
    r: Rank
    lora_alpha: Annotated[float, Field(gt=0)]
    rank_pattern: dict[str, Rank] | None = None
    modules_to_save: list[str] | None = None
    trainable_token_indices: list[int] | dict[str, list[int]] | None = None


def read_adapters(
    folder: Path, scenes: Sequence[str], model: Path
) -> tuple[dict[str, Adapter], list[str]]:
    """The adapters in the bundle `folder` by scene, and everything that is wrong with them.

    `model` is the base model's folder, whose projections the pairs must fit.
    """
    found: dict[str, Adapter] = {}
    problems: list[str] = []
    entries = sorted((folder / ADAPTERS).glob("*"))
    base = tensor_shapes(model) if entries else {}
    for path in entries:
        if path.name not in scenes:
            known = f"knows {', '.join(scenes)}" if scenes else "knows no scenes"
            problems.append(f"{ADAPTERS}/{path.name}: no such scene; the bundle {known}")
            continue
        try:
            found[path.name] = _read(path, base)
        except BundleError as error:
            problems += [f"{ADAPTERS}/{path.name}: {reason}" for reason in error.problems]
    return found, problems


def tensor_shapes(folder: Path) -> dict[str, Shape]:
    """The shape of each tensor in the safetensors of a folder. Raises `BundleError`."""
    shapes: dict[str, Shape] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "numpy") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                    shapes[name] = tuple(tensors.get_slice(name).get_shape())
        except SafetensorError as error:
            raise BundleError([f"{folder.name}/{file.name}: not safetensors: {error}"]) from error
    return shapes


def _read(path: Path, base: Mapping[str, Shape]) -> Adapter:
    if missing := [name for name in ADAPTER_FILES if not (path / name).is_file()]:
        raise BundleError([f"{name} is missing" for name in missing])
    config_file = ADAPTER_FILES[0]
    try:
        config = _Config.model_validate_json((path / config_file).read_bytes())
        shapes = tensor_shapes(path)
    except ValidationError as error:
        named = [(".".join(map(str, e["loc"])) or "document", e["msg"]) for e in error.errors()]
        raise BundleError([f"{config_file}: {at}: {reason}" for at, reason in named]) from error
    problems = list(_beyond_pairs(config, shapes))
    misfits = list(_misfits(config, shapes, base))
    more = f" (and {len(misfits) - 1} more like this)" if len(misfits) > 1 else ""
    if problems or misfits:
        raise BundleError([*problems, *(f"{misfit}{more}" for misfit in misfits[:1])])
    return Adapter(path, max(shape[0] for name, shape in shapes.items() if ".lora_A." in name))


def _beyond_pairs(config: _Config, shapes: Mapping[str, Shape]) -> Iterator[str]:
    """What an adapter has besides pairs of projections."""
    others = [name for name in shapes if not _PAIR.fullmatch(name)]
    modules = config.modules_to_save or []
    if (
        any(_VOCABULARY.search(f".{name}.") for name in [*others, *modules])
        or config.trainable_token_indices
    ):
        yield (
            "changes the embeddings or the head, and with them the vocabulary of the base model,"
            " which all scenes share; train the SID tokens into the base model, and adapters on it"
        )
    elif modules:
        yield f"modules_to_save: {', '.join(modules)}; only LoRA pairs can be served"
    elif others:
        yield f"{len(others)} tensors are not LoRA pairs of a projection, such as {others[0]}"
    if len(others) == len(shapes):
        yield "holds no LoRA pair of a projection"


def _misfits(
    config: _Config, shapes: Mapping[str, Shape], base: Mapping[str, Shape]
) -> Iterator[str]:
    """Pairs that are not whole, or do not belong to this model."""
    ranks = {config.r, *(config.rank_pattern or {}).values()}
    modules = {match["module"] for name in shapes if (match := _PAIR.fullmatch(name))}
    for module in sorted(modules):
        a, b = (shapes.get(f"base_model.model.{module}.lora_{side}.weight") for side in "AB")
        weight = base.get(f"{module}.weight")
        if weight is None:
            yield f"the model has no {module}"
        elif a is None or b is None:
            yield f"{module} has only one half of its pair"
        elif len(a) != 2 or len(b) != 2 or (b[0], a[1]) != weight or a[0] != b[1]:
            yield f"{module}: A {a} and B {b} do not fit weights of {weight}"
        elif a[0] not in ranks:
            yield f"{module} has rank {a[0]}, {ADAPTER_FILES[0]} says {config.r}"
