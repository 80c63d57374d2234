"""The code blocks of the pages that a person reads, and what is said of each.

CONTRIBUTING.md has the rule: a block runs, is parsed, is the output of the block before it, or says
in a comment before it why it does not run.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = (
    ROOT / "README.md",
    *sorted(path for path in ROOT.glob("*.md") if path.name != "README.md"),
    *sorted((ROOT / "docs").glob("*.md")),
)

_MARK = re.compile(r"<!-- not run:(?P<reason>.*?)-->", re.DOTALL)
_OUTPUT = "<!-- output -->"
_RUN = ("sh", "python", "javascript")
_PARSED = ("json", "toml", "yaml")


class Fate(StrEnum):
    """What becomes of a block."""

    RUN = "run"
    OUTPUT = "compared with an output"
    PARSED = "parsed"
    MARKED = "marked as not runnable here"
    UNKNOWN = "neither"


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: `line` is that of its fence, `reason` why it is not run, if it says so."""

    page: Path
    line: int
    language: str
    text: str
    reason: str | None = None
    output: bool = False

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def fate(self) -> Fate:
        if self.reason is not None:
            return Fate.MARKED if self.reason else Fate.UNKNOWN
        if self.output:
            return Fate.OUTPUT
        if self.language in _RUN:
            return Fate.RUN
        return Fate.PARSED if self.language in _PARSED else Fate.UNKNOWN


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return list(_blocks(page, page.read_text()))


def inline_code(page: Path) -> list[str]:
    """What stands between backticks in the sentences and tables of a page."""
    tokens = MarkdownIt().enable("table").parse(page.read_text())
    children = [child for token in tokens for child in token.children or ()]
    return [child.content for child in children if child.type == "code_inline"]


def _blocks(page: Path, text: str) -> Iterator[Block]:
    comment = ""
    for token in MarkdownIt().enable("table").parse(text):
        if token.type == "html_block":
            comment = token.content.strip()
        elif token.type == "fence":
            assert token.map is not None
            mark = _MARK.fullmatch(comment)
            yield Block(
                page=page,
                line=token.map[0] + 1,
                language=token.info.strip(),
                text=token.content,
                reason=mark["reason"].strip() if mark else None,
                output=comment == _OUTPUT,
            )
            comment = ""
        elif token.type not in ("list_item_close", "bullet_list_close"):
            comment = ""
