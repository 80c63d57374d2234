"""What the commands of a page may name: programs of ours, their options, targets of make."""

from typing import Any

import typer

from bench.cli import app as bench_app
from bench.load.command import app as load_app
from service.cli import cli
from tests.docs.blocks import ROOT

_PASSED_ON = {"bench": bench_app, "load": load_app}
"""Commands whose own module knows what comes after them."""


def mistakes(words: list[str]) -> list[str]:
    """What a call of one of our programs names that does not exist."""
    match words:
        case ["sidrec", *rest]:
            return _of_sidrec(rest)
        case ["make", *targets]:
            known = (ROOT / "Makefile").read_text()
            named = [target for target in targets if "=" not in target]
            return [f"make {one}: no such target" for one in named if f"\n{one}:" not in known]
    return []


def _of_sidrec(words: list[str]) -> list[str]:
    name, command, rest = "sidrec", typer.main.get_command(cli), list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith(("-", "…")):
        word = rest.pop(0)
        name += f" {word}"
        if word not in command.commands:
            return [f"{name}: no such command"]
        passed_on = _PASSED_ON.get(word) if name == f"sidrec {word}" else None
        command = typer.main.get_command(passed_on) if passed_on else command.commands[word]
    options = _options(command)
    given = [word.partition("=")[0] for word in rest if word.startswith("--")]
    return [f"{name} {one}: no such option" for one in given if one not in options]


def _options(command: Any) -> set[str]:
    named = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    return named | {"--help"}
