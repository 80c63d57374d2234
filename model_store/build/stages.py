"""Runs the stages of a build, each once: what is finished and still fits its inputs is not redone.

A stage writes into `work/<name>.part/`, which becomes `work/<name>/` when it is finished, together
with a record: a digest of what the stage was made from (its settings, the files it read, the
outputs of the stages before it) and one of what it made. A stage is *fresh* when both still hold,
so a changed setting, another input file and a damaged output all make it run again, and whatever
was killed left nothing that counts.
"""

import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from model_store.build.disk import disk_errors
from model_store.bundle import file_entries
from model_store.errors import BuildError

RECORD = "stage.json"


@dataclass(frozen=True)
class Stage:
    """One step. `run` fills the folder it is given.

    settings: what of the configuration it depends on; files: what it reads from outside;
    after: the stages whose outputs it reads. A stage that `resumes` finds in its folder what an
    interrupted run with the same inputs left there.
    """

    name: str
    run: Callable[[Path], None]
    settings: Any = None
    files: Sequence[Path] = ()
    after: Sequence[str] = ()
    resumes: bool = False


class Work:
    """The folder of a build; `with work.locked():` around whatever runs stages."""

    def __init__(self, folder: Path, console: Console) -> None:
        self.folder = folder
        self._console = console

    def path(self, name: str) -> Path:
        """Where a finished stage left its files."""
        return self.folder / name

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Raises `BuildError` while another build is at work in the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BuildError(f"another build is at work in {self.folder}") from None
            yield

    def run(self, stages: Sequence[Stage], may_run: Container[str]) -> None:
        """Runs what is not fresh, in order.

        Raises `BuildError` for a full disk, and for a stage that is not fresh and may not run.
        """
        outputs: dict[str, str] = {}
        for stage in stages:
            inputs = _inputs(stage, outputs)
            record = self._fresh(stage, inputs)
            if record:
                self._console.print(f"[dim]{stage.name}: as it was made in {record['seconds']} s")
            elif stage.name not in may_run:
                raise BuildError(f"{stage.name} is not finished, or its inputs have changed")
            else:
                self._console.rule(f"[bold]{stage.name}")
                with disk_errors(stage.name, self.folder / f"{stage.name}.part"):
                    record = self._make(stage, inputs)
            outputs[stage.name] = record["outputs"]

    def digest(self, names: Sequence[str], more: Any) -> str:
        """A digest of what finished stages made, and of `more`."""
        return _digest([[_record(self.path(name))["outputs"] for name in names], more])

    def _fresh(self, stage: Stage, inputs: str) -> dict[str, Any] | None:
        folder = self.path(stage.name)
        record = _record(folder)
        fits = record.get("inputs") == inputs and record.get("outputs") == _outputs(folder)
        return record if fits else None

    def _make(self, stage: Stage, inputs: str) -> dict[str, Any]:
        part, folder = self.folder / f"{stage.name}.part", self.path(stage.name)
        begun = part / RECORD
        left = _record(part)
        if left.get("inputs") != inputs or not (stage.resumes or "outputs" in left):
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            begun.write_text(json.dumps({"inputs": inputs}))
        if _record(part).get("outputs") == _outputs(part):  # killed just before its last step
            return self._settle(part, folder)
        started = time.monotonic()
        stage.run(part)
        seconds = round(time.monotonic() - started, 1)
        record = {"inputs": inputs, "outputs": _outputs(part), "seconds": seconds}
        begun.write_text(json.dumps(record, indent=2) + "\n")
        return self._settle(part, folder)

    def _settle(self, part: Path, folder: Path) -> dict[str, Any]:
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
        return _record(folder)


def _inputs(stage: Stage, outputs: dict[str, str]) -> str:
    try:
        read = {str(path): _sha256(path) for path in stage.files}
    except OSError as error:
        raise BuildError(f"{stage.name}: {error}") from error
    return _digest([stage.settings, read, {name: outputs[name] for name in stage.after}])


def _outputs(folder: Path) -> str:
    files = file_entries(folder) if folder.is_dir() else {}
    return _digest({name: entry.sha256 for name, entry in files.items() if name != RECORD})


def _record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
