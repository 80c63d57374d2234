"""The configuration of a build, a TOML file. Unknown keys and bad values are named."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from model_store.build.adapters import Adapters
from model_store.build.blend import Blending
from model_store.build.evaluation import Evaluation
from model_store.build.gate import Publish
from model_store.build.model import ModelShape, Pretrained
from model_store.build.section import Section
from model_store.build.sids.config import Sids
from model_store.build.train import Schedule
from model_store.errors import BuildError
from model_store.neighbours import Counting
from model_store.prompt import PromptTemplate


class ShopData(Section):
    """The generated demo shop."""

    source: Literal["shop"]
    seed: int = 20
    items: int = 2600
    users: int = 6000


class FileData(Section):
    """JSON lines, CSV or Parquet, gzipped or not; paths are relative to the working folder.

    items:      item_id, any attributes, and `sid` unless the build makes the SIDs
    sequences:  user_id, sequence (item ids in time order), optional profile; or instead
    events:     user_id, item_id, timestamp, optional type and scene; or instead
    train, valid, test: a split that is given: sequences, and cases of user_id, history, target
    users:      user_id and the fields of the profile
    """

    source: Literal["files"]
    items: Path
    sequences: Path | None = None
    events: Path | None = None
    train: Path | None = None
    valid: Path | None = None
    test: Path | None = None
    users: Path | None = None
    columns: dict[str, str] = Field(default={}, description="our name of a column → the files'")
    types: tuple[str, ...] = Field(default=(), description="event types that count; none: all")
    core: int = Field(default=0, ge=0, description="events that each user and each item must have")
    drop_unclicked: bool = Field(default=False, description="leave out items without a click")

    @model_validator(mode="after")
    def _one_source(self) -> "FileData":
        given = [name for name in ("sequences", "events", "train") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"needs one of sequences, events or train and test, not {given}")
        if bool(self.train) != bool(self.test) or (self.valid and not self.train):
            raise ValueError("train and test belong together, and valid to both")
        return self

    @property
    def files(self) -> list[Path]:
        """Every file that is read."""
        clicks = (self.sequences, self.events, self.train, self.valid, self.test, self.users)
        return [self.items, *(path for path in clicks if path)]


class Split(Section):
    """Which clicks are kept from training and asked for afterwards.

    users:         the last click of a random share of the users, who are not trained on at all
    leave-one-out: the last click of every user; the one before is kept for validation
    chronological: a share of all clicks, the last in time
    files:         as `data.train`, `data.valid` and `data.test` say
    """

    kind: Literal["users", "leave-one-out", "chronological", "files"] = "leave-one-out"
    share: float = Field(default=0.2, gt=0, lt=1)
    valid_share: float = Field(default=0.0, ge=0, lt=1, description="as much again, to validate on")

    @model_validator(mode="after")
    def _something_is_left(self) -> "Split":
        if self.share + self.valid_share >= 1:
            raise ValueError("share and valid_share leave nothing to learn from")
        return self


class BuildConfig(Section):
    name: str
    data: Annotated[ShopData | FileData, Field(discriminator="source")]
    split: Split = Split()
    sids: Sids | None = None
    prompt: PromptTemplate
    vocabulary: int = Field(default=512, description="byte-pair tokens, the SID tokens aside")
    model: Annotated[
        Annotated[ModelShape, Tag("shape")] | Annotated[Pretrained, Tag("base")],
        Discriminator(lambda value: "base" if "base" in dict(value) else "shape"),
    ] = ModelShape()
    train: Schedule = Schedule()
    adapters: Adapters | None = None
    neighbours: Counting = Counting()
    blend: Blending | None = None
    evaluate: Evaluation = Evaluation()
    publish: Publish = Publish()

    @model_validator(mode="after")
    def _split_fits_data(self) -> "BuildConfig":
        given = isinstance(self.data, FileData) and self.data.train is not None
        if given != (self.split.kind == "files"):
            raise ValueError('split.kind = "files" goes with data.train and data.test')
        return self

    @model_validator(mode="after")
    def _adapters_fit_prompt(self) -> "BuildConfig":
        wanted, known = self.adapters.scenes if self.adapters else (), self.prompt.scenes
        if known and (unknown := set(wanted) - set(known)):
            raise ValueError(f"adapters.scenes: prompt.scenes has no {', '.join(sorted(unknown))}")
        return self


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
