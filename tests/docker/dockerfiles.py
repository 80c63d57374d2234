"""The Dockerfiles as a builder reads them, for tests that do its work without one."""

import json
import shlex
import shutil
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from dockerfile_parse import DockerfileParser
from pathspec import PathSpec

from tests.docker.files import DOCKER, ROOT

CPU = DOCKER / "Dockerfile"
GPU = DOCKER / "Dockerfile.gpu"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of the stage number `stage`, without comments and line ends."""

    stage: int
    name: str
    value: str

    @property
    def flags(self) -> dict[str, str]:
        words = self.value.split()
        return dict(word[2:].split("=", 1) for word in words if word.startswith("--"))

    @property
    def plain(self) -> str:
        """The value without its flags."""
        rest = self.value.strip()
        while rest.startswith("--"):
            rest = rest.partition(" ")[2].strip()
        return rest

    @property
    def listed(self) -> list[str]:
        """The words of an instruction in its JSON form."""
        words: list[str] = json.loads(self.plain)
        return words


def instructions(path: Path) -> list[Instruction]:
    """All but comments, in order; build arguments stay as they are written."""
    stage = -1
    found = []
    structure: list[dict[str, Any]] = DockerfileParser(fileobj=BytesIO(path.read_bytes())).structure
    for each in structure:
        name = each["instruction"]
        stage += name == "FROM"
        if name != "COMMENT":
            found.append(Instruction(stage, name, each["value"]))
    return found


def last(path: Path, name: str) -> Instruction:
    """What the finished image has of an instruction of which the last one counts."""
    return [each for each in instructions(path) if each.name == name][-1]


def environment(path: Path) -> dict[str, str]:
    """The variables that the last stage sets."""
    all_of = instructions(path)
    of_last = [each for each in all_of if each.name == "ENV" and each.stage == all_of[-1].stage]
    return dict(pair.split("=", 1) for each in of_last for pair in shlex.split(each.value))


def sources(copy: Instruction) -> list[str]:
    """What a COPY from the build's context takes; nothing where it takes from a stage."""
    return [] if "from" in copy.flags else copy.plain.split()[:-1]


def sent(source: str) -> list[Path]:
    """The files that `source` names in the context, as `.dockerignore` lets them through."""
    ignored = PathSpec.from_lines("gitignore", (ROOT / ".dockerignore").read_text().splitlines())
    path = ROOT / source
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return [each for each in files if not ignored.match_file(each.relative_to(ROOT))]


def copy(instruction: Instruction, workdir: Path) -> None:
    """Does what a COPY from the context does, with `workdir` as the folder it is relative to."""
    target = workdir / instruction.plain.split()[-1].removeprefix("/")
    for source in sources(instruction):
        folder = ROOT / source if (ROOT / source).is_dir() else (ROOT / source).parent
        for file in sent(source):
            to = target / file.relative_to(folder)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, to)
