"""What a person types into a shell, and what it prints there."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

PROMPT = "$ "
_SEPARATORS = {"|", "||", "&&", ";", "&", "(", ")"}
_ASSIGNMENT = re.compile(r"\w+=.*", re.DOTALL)

# What differs from one run to the next, and what may stand in its place.
_VARYING = {
    r"…": r".*?",
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|\+00:00)?": None,
    r"\b[0-9a-f]{32,64}\b": r"[0-9a-f]{32,64}",
    r"-?\b\d[\d,]*\.\d+(?:e-?\d+)?": r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?",
    r"\s+": r"\s*",
}
_PIECE = re.compile("|".join(f"(?P<k{i}>{key})" for i, key in enumerate(_VARYING)))


@dataclass(frozen=True, slots=True)
class Command:
    """What is typed, perhaps in several lines; and the output shown for it, if any is."""

    text: str
    shown: str | None = None


def commands(block: str) -> list[Command]:
    """The commands of a block. Where one begins with `$ `, what is between them is their output;
    otherwise every line is typed."""
    lines = block.splitlines()
    found = list(_prompted(lines) if block.startswith(PROMPT) else _typed(lines))
    return [command for command in found if _has_words(command.text)]


def _has_words(text: str) -> bool:
    return any(not line.lstrip().startswith("#") and line.strip() for line in text.splitlines())


def _prompted(lines: list[str]) -> Iterator[Command]:
    rest = list(lines)
    while rest:
        typed = [rest.pop(0).removeprefix(PROMPT)]
        while not _whole(typed) and rest:
            typed.append(rest.pop(0))
        shown = []
        while rest and not rest[0].startswith(PROMPT):
            shown.append(rest.pop(0))
        yield Command("\n".join(typed), "\n".join(shown).strip() or None)


def _typed(lines: list[str]) -> Iterator[Command]:
    typed: list[str] = []
    for line in lines:
        typed.append(line)
        if _whole(typed):
            yield Command("\n".join(typed))
            typed = []
    assert not typed, f"an unfinished command: {typed}"


def _whole(typed: list[str]) -> bool:
    """Whether the shell would begin now, and not wait for another line."""
    if typed[-1].endswith("\\"):
        return False
    checked = subprocess.run(
        ["bash", "-n", "-c", "\n".join(typed)], capture_output=True, text=True, check=False
    )
    return checked.returncode == 0 and "here-document" not in checked.stderr


def simple_commands(text: str) -> Iterator[list[str]]:
    """The words of each program call in it: pipes are taken apart, variables that are set before a
    program are left out."""
    lexer = shlex.shlex(text.replace("\n", " ;\n"), posix=True, punctuation_chars="|&;()<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word in _SEPARATORS or set(word) <= set("|&;()"):
            if words:
                yield words
            words = []
        elif words or not _ASSIGNMENT.fullmatch(word):
            words.append(word)


def agrees(shown: str, printed: str) -> bool:
    """Whether a page tells the truth about an output.

    `…` stands for anything. Numbers with a decimal point, times and long hexadecimal ids may be
    others, and white space may be less; every other word and whole number must be the same.
    """
    return re.fullmatch(_pattern(shown.strip()), printed.strip(), re.DOTALL) is not None


def _pattern(shown: str) -> str:
    made, done = "", 0
    for piece in _PIECE.finditer(shown):
        made += re.escape(shown[done : piece.start()])
        key = list(_VARYING)[int(str(piece.lastgroup)[1:])]
        made += _VARYING[key] or key
        done = piece.end()
    return made + re.escape(shown[done:])
