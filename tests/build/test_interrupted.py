"""Builds that are killed, starved of disk or fed with rubbish: what the user sees, what is left."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import pytest

from model_store.bundle import Bundle, Manifest
from model_store.store import Store
from tests.build.processes import Ended, FilesUpTo, KilledAt, Trouble, build

CONFIG = """
name = "tiny"
vocabulary = 300
data = { source = "shop", items = 60, users = 40 }
sids = { dimensions = 8, levels = 3, codes = 8 }
model = { hidden = 32, layers = 1, heads = 2, kv_heads = 1, intermediate = 32, max_length = 512 }
adapters = { scenes = ["home", "search"], rank = 2 }
evaluate = { sample = 2 }

[prompt]
text = "在{scene}点击了{history},下一个?"
tasks = { sid_to_title = "商品{sid}的标题是什么?", title_to_sid = "标题为{title}的商品是哪个?" }

[train]
epochs = 2
batch_tokens = 4096
dropout = 0.1
validate_every = 1
validate_cases = 20
mix = { sid_to_title = 0.2, title_to_sid = 0.2 }
"""

STAGES = ("ingest", "sids", "dataset", "train", "adapters", "evaluate")

MOMENTS = {
    "ingest": r"ingest\.part/test\.jsonl",
    "sids": r"sids\.part/sid_report\.json",
    "dataset": r"dataset\.part/next_item\.jsonl",
    "train": r"train\.part/state/best$",  # the first epoch's model is the best so far
    "train, in a checkpoint": r"train\.part/state/checkpoint\.part",
    "train, at its end": r"train\.part/training\.json$",
    "adapters": r"rmtree .*adapters\.part/home\.training$",  # done with the first of two
    "adapters, in a checkpoint": r"adapters\.part/search\.training/state/checkpoint\.part",
    "evaluate": r"evaluate\.part/report/report\.md",
    "publish": r"/store/\.staging-\w+/manifest\.json",
    "promotion": r"tiny/aliases",
}
"""By stage, the path at which a process is killed when it is about to touch it: in the middle of
the stage, with some of its files written."""


@dataclass(frozen=True)
class Place:
    """A configuration, a store and a folder of stages."""

    folder: Path
    config: Path

    @property
    def store(self) -> Store:
        return Store(self.folder / "store")

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def build(self, *options: str, trouble: Trouble | None = None) -> Ended:
        return build(self.config, self.store.root, self.work, *options, trouble=trouble)

    @property
    def manifest(self) -> Manifest:
        return Bundle.load(self.store.path("tiny", 1)).manifest

    def begun(self, folder: Path, stage: str) -> "Place":
        """A copy in which everything before a stage is finished."""
        copy = Place(folder, self.config)
        copy.work.mkdir(parents=True)
        for name in takewhile(lambda name: name != stage, STAGES):
            shutil.copytree(self.work / name, copy.work / name)
        return copy


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Built in one go."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "tiny.toml").write_text(CONFIG)
    place = Place(folder, folder / "tiny.toml")
    ended = place.build()
    assert ended.code == 0, ended.output
    return place


def test_killed_in_every_stage_equals_uninterrupted(whole: Place, tmp_path: Path) -> None:
    """kill -9, eleven times in one build, each time after the one before was taken up again."""
    place = Place(tmp_path, whole.config)
    for moment, pattern in MOMENTS.items():
        ended = place.build(trouble=KilledAt(pattern))
        assert ended.code == -9, f"{moment}: {ended.output}"
        stage = moment.split(",")[0]
        finished = STAGES[: STAGES.index(stage)] if stage in STAGES else STAGES
        assert [name for name in STAGES if (place.work / name).exists()] == list(finished)
        assert place.store.versions("tiny") == ([1] if moment == "promotion" else [])
    assert place.store.aliases("tiny") == {}
    assert place.build().code == 0
    assert place.manifest.files == whole.manifest.files
    assert place.manifest.metrics == whole.manifest.metrics
    assert place.store.versions("tiny") == [1]
    assert place.store.resolve("tiny@champion") == ("tiny", 1)


def assert_told(ended: Ended, stage: str, reason: str) -> None:
    """The last line, and no traceback, says which stage, which path and why."""
    assert ended.code == 1
    assert "Traceback" not in ended.output
    assert re.fullmatch(rf"{stage}: /\S+: {reason}", ended.output.rstrip().splitlines()[-1])


@pytest.mark.parametrize(
    ("stage", "size"),
    [
        ("ingest", 0),  # not even the record of the stage
        ("ingest", 3_000),
        ("sids", 2_000),
        ("dataset", 9_000),  # the tokenizer's library raises bare `Exception`
        ("train", 20_000),  # safetensors raises an error of its own
        ("train", 200_000),
        ("adapters", 1_000),  # and so does torch
        ("evaluate", 30_000),
        ("publish", 10_000),
        ("publish", 100),
    ],
)
def test_a_file_that_cannot_grow(whole: Place, tmp_path: Path, stage: str, size: int) -> None:
    """A quota, in effect, which every system can set, and which hits in every stage."""
    place = whole.begun(tmp_path, stage)
    assert_told(place.build(trouble=FilesUpTo(size)), stage, "File too large")
    assert not (place.work / stage).exists()
    assert [*place.store.root.glob("*"), *place.store.root.glob(".*")] == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes; only root can have one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk], check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("cannot mount a disk here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def fill(disk: Path, left: int) -> Path:
    """Writes a file that leaves so many bytes of the disk."""
    path = disk / "others"
    path.write_bytes(bytes(shutil.disk_usage(disk).free - left))
    return path


@pytest.mark.parametrize(
    ("stage", "left", "made"),
    [
        ("sids", 8_192, "work/sids/items.jsonl"),
        ("train", 65_536, "work/train/model/model.safetensors"),
        ("publish", 16_384, "store/tiny/1/model/model.safetensors"),
    ],
)
def test_a_full_disk_and_more_room_afterwards(
    whole: Place, small_disk: Path, stage: str, left: int, made: str
) -> None:
    place = whole.begun(small_disk, stage)
    others = fill(small_disk, left)
    assert_told(place.build(), stage, "No space left on device")
    assert [*place.store.root.glob("*"), *place.store.root.glob(".*")] == []
    others.unlink()
    assert place.build("--stage", stage).code == 0
    assert (place.folder / made).read_bytes() == (whole.folder / made).read_bytes()
