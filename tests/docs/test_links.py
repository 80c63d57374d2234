"""Links of the pages, and the files that they name."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.docs.blocks import PAGES, ROOT


def _tokens(page: Path) -> list[Token]:
    return MarkdownIt().enable("table").parse(page.read_text())


def _inline(page: Path) -> list[Token]:
    return [child for token in _tokens(page) for child in token.children or ()]


def _links(page: Path) -> list[str]:
    found = [token.attrGet("href") or token.attrGet("src") for token in _inline(page)]
    return [str(link) for link in found if link and "://" not in str(link)]


def _anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    tokens = _tokens(page)
    headings = [
        tokens[place + 1].content
        for place, token in enumerate(tokens)
        if token.type == "heading_open"
    ]
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in _links(page):
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_a_page_is_found_from_the_readme(page: Path) -> None:
    found, seen = [ROOT / "README.md"], set()
    while found:
        one = found.pop()
        if one not in seen and one in PAGES:
            seen.add(one)
            found += [(one.parent / link.partition("#")[0]).resolve() for link in _links(one)]
    assert page in seen


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_files_that_are_named_are_there(page: Path) -> None:
    """What stands between backticks and looks like a file of ours."""
    named = [token.content for token in _inline(page) if token.type == "code_inline"]
    ours = [
        name for name in named if re.fullmatch(r"(service|model_store|tests|bench)/[\w/.]+", name)
    ]
    made = ("bench/out/",)
    assert not [name for name in ours if name not in made and not (ROOT / name).exists()]


def test_ten_questions_of_a_newcomer() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| .+\? \| `(\S+)` \| `(.+)` \|$", text, re.MULTILINE)
    assert len(rows) == 10
    for file, symbol in rows:
        assert symbol in (ROOT / file).read_text(), (file, symbol)


def test_operations_has_a_row_for_each_alert() -> None:
    rules = (ROOT / "docker" / "prometheus" / "rules.yml").read_text()
    page = (ROOT / "docs" / "operations.md").read_text()
    rows = re.findall(r"^\| `(Sidrec\w+)` \|", page, re.MULTILINE)
    assert rows == re.findall(r"- alert: (\w+)", rules)
