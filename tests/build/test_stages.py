"""What is redone, and what is not."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from model_store.build.stages import RECORD, Stage, Work
from model_store.errors import BuildError


class Counted:
    """Two stages over real files: `one` copies a file and a setting, `two` doubles that."""

    def __init__(self, folder: Path) -> None:
        self.work = Work(folder / "work", Console(quiet=True))
        self.source = folder / "source.txt"
        self.source.write_text("a")
        self.setting = "x"
        self.runs: list[str] = []

    def one(self, folder: Path) -> None:
        self.runs.append("one")
        (folder / "text").write_text(self.source.read_text() + self.setting)

    def two(self, folder: Path) -> None:
        self.runs.append("two")
        (folder / "text").write_text((self.work.path("one") / "text").read_text() * 2)

    def stages(self) -> list[Stage]:
        return [
            Stage("one", self.one, self.setting, [self.source]),
            Stage("two", self.two, after=["one"]),
        ]

    def run(self, *may_run: str) -> list[str]:
        """The stages that ran."""
        self.runs.clear()
        with self.work.locked():
            self.work.run(self.stages(), may_run or ("one", "two"))
        return list(self.runs)


@pytest.fixture
def counted(tmp_path: Path) -> Counted:
    return Counted(tmp_path)


def change_setting(counted: Counted) -> None:
    counted.setting = "y"


def change_source(counted: Counted) -> None:
    counted.source.write_text("b")


def damage(counted: Counted) -> None:
    (counted.work.path("one") / "text").write_text("rot")


def damage_record(counted: Counted) -> None:
    (counted.work.path("one") / RECORD).write_text("{")


def test_a_finished_stage_is_not_run_again(counted: Counted) -> None:
    assert counted.run() == ["one", "two"]
    assert counted.run() == []
    assert (counted.work.path("two") / "text").read_text() == "axax"


@pytest.mark.parametrize(
    ("what", "redone"),
    [
        (change_setting, ["one", "two"]),
        (change_source, ["one", "two"]),
        # The same comes out, so what stands on it is still good.
        (damage, ["one"]),
        (damage_record, ["one"]),
    ],
)
def test_what_changed_is_redone_and_what_stands_on_it(
    counted: Counted, what: Callable[[Counted], None], redone: list[str]
) -> None:
    counted.run()
    what(counted)
    assert counted.run() == redone
    assert counted.run() == []


def test_only_named_stages_run(counted: Counted) -> None:
    with pytest.raises(BuildError, match="one is not finished"):
        counted.run("two")
    assert counted.run("one", "two") == ["one", "two"]
    change_source(counted)
    with pytest.raises(BuildError, match="its inputs have changed"):
        counted.run("two")


def test_a_stage_that_fails_leaves_nothing_that_counts(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "half")

    monkeypatch.setattr(counted, "two", full)
    with pytest.raises(BuildError, match=r"two: .*No space left on device"):
        counted.run()
    monkeypatch.undo()
    assert counted.run() == ["two"]
    assert not (counted.work.path("two") / "half").exists()


def test_a_stage_that_resumes_finds_what_it_left_unless_its_inputs_changed(tmp_path: Path) -> None:
    found: list[bool] = []

    def run(folder: Path) -> None:
        found.append((folder / "so far").exists())
        (folder / "so far").touch()
        if len(found) < 4:
            raise BuildError("killed")

    work = Work(tmp_path / "work", Console(quiet=True))
    work.folder.mkdir()
    for setting in ("a", "a", "b", "b"):
        try:
            work.run([Stage("train", run, setting, resumes=True)], ["train"])
        except BuildError:
            assert not work.path("train").exists()
    assert found == [False, True, False, True]


def test_a_stage_killed_before_its_last_step_only_takes_that_step(counted: Counted) -> None:
    counted.run()
    done = counted.work.path("two")
    done.rename(done.with_name("two.part"))
    assert counted.run() == []
    assert (done / "text").read_text() == "axax"


def test_two_builds_do_not_share_a_folder(counted: Counted) -> None:
    with (
        counted.work.locked(),
        pytest.raises(BuildError, match="another build is at work"),
        counted.work.locked(),
    ):
        pass


def test_a_missing_file_is_named(counted: Counted) -> None:
    counted.source.unlink()
    with pytest.raises(BuildError, match=r"one: .*source\.txt"):
        counted.run()
