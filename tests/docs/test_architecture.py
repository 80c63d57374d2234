"""What docs/architecture.md says of imports is so."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT

_ROW = re.compile(r"^\| (`[\w.]+`) \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)
RULES = [
    (room.strip("`"), re.findall(r"`([\w.]+)`", never))
    for room, never in _ROW.findall((ROOT / "docs" / "architecture.md").read_text())
    if "," in never or "`" in never
]


def _files(room: str) -> list[Path]:
    place = ROOT / room.replace(".", "/")
    return sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]


def _imported(file: Path) -> Iterator[str]:
    """Names of modules, with what is taken from them: `from service import history` is
    `service.history`. Imports within functions count."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_table_is_read() -> None:
    rooms = {room for room, _ in RULES}
    assert {"model_store", "service.engine", "service.api", "service.client"} <= rooms


@pytest.mark.parametrize(("room", "never"), RULES, ids=lambda value: str(value)[:40])
def test_a_room_imports_no_more_than_it_should(room: str, never: list[str]) -> None:
    files = _files(room)
    assert files
    found = [
        f"{file.relative_to(ROOT)}: {name}"
        for file in files
        for name in _imported(file)
        if any(f"{name}.".startswith(f"{banned}.") for banned in never)
    ]
    assert not found


@pytest.mark.parametrize("banned", sorted({name for _, names in RULES for name in names}))
def test_what_is_never_imported_exists(banned: str) -> None:
    """A rule about a module that was renamed would hold for ever."""
    if banned.partition(".")[0] in ("service", "model_store", "bench"):
        assert all(file.exists() for file in _files(banned))
        assert _files(banned)
