"""The configuration of a build, a TOML file. Unknown keys and bad values are named."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model_store.build.sids.config import Sids
from model_store.build.train import ModelShape, Schedule
from model_store.errors import BuildError
from model_store.prompt import PromptTemplate


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ShopData(_Part):
    """The generated demo shop."""

    source: Literal["shop"]
    seed: int = 20
    items: int = 2600
    users: int = 6000


class FileData(_Part):
    """JSON lines, gzipped or not; paths are relative to the working folder.

    items:     item_id, any attributes, and `sid` unless the build makes the SIDs
    sequences: user_id, sequence (item ids in time order), optional profile
    """

    source: Literal["files"]
    items: Path
    sequences: Path


class Split(_Part):
    """Which clicks are kept from training and asked for afterwards.

    users:         the last click of a random share of the users, who are not trained on at all
    leave-one-out: the last click of every user; the one before is kept for validation
    """

    kind: Literal["users", "leave-one-out"] = "leave-one-out"
    share: float = Field(default=0.2, gt=0, lt=1)


class BuildConfig(_Part):
    name: str
    data: Annotated[ShopData | FileData, Field(discriminator="source")]
    split: Split = Split()
    sids: Sids | None = None
    prompt: PromptTemplate
    vocabulary: int = Field(default=512, description="byte-pair tokens, the SID tokens aside")
    model: ModelShape = ModelShape()
    train: Schedule = Schedule()


def load_config(path: Path) -> BuildConfig:
    """Reads a configuration. Raises `BuildError` with one line for each mistake."""
    try:
        raw: dict[str, Any] = tomllib.loads(path.read_text())
        return BuildConfig.model_validate(raw)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise BuildError(f"{path}: {error}") from error
    except ValidationError as error:
        lines = [f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise BuildError("\n".join(lines)) from error
