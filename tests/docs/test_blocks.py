"""Every code block of the pages that a person reads is run, or says why not."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.blocks import PAGES, ROOT, Block, Fate, blocks, inline_code
from tests.docs.interface import mistakes
from tests.docs.reader import Reader
from tests.docs.shell import commands, simple_commands

_PARSERS: dict[str, Callable[[str], Any]] = {
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": lambda t: list(yaml.safe_load_all(t)),
}
ALL = [block for page in PAGES for block in blocks(page)]
RUN = [page for page in PAGES if any(block.fate is Fate.RUN for block in blocks(page))]


def _name(of: Block | Path) -> str:
    return of.place if isinstance(of, Block) else str(of.relative_to(ROOT))


@pytest.mark.parametrize("page", RUN, ids=_name)
def test_what_a_page_says_works(page: Path, reader: Reader) -> None:
    for block in blocks(page):
        if block.fate in (Fate.RUN, Fate.OUTPUT):
            reader.does(block)


def test_none_is_left_out() -> None:
    # A language that is not known here, or a mark without a reason: see CONTRIBUTING.md.
    assert not [block.place for block in ALL if block.fate is Fate.UNKNOWN]


@pytest.mark.parametrize("block", [one for one in ALL if one.fate is Fate.PARSED], ids=_name)
def test_what_is_shown_is_well_formed(block: Block) -> None:
    assert _PARSERS[block.language](block.text)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_and_options_exist(page: Path) -> None:
    shells = [block.text for block in blocks(page) if block.language == "sh"]
    typed = [command.text for text in shells for command in commands(text)]
    typed += [code for code in inline_code(page) if code.startswith(("sidrec ", "make "))]
    calls = [call for text in typed for call in simple_commands(text)]
    assert not [problem for call in calls for problem in mistakes(call)]
