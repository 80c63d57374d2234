"""The page at `/` as it is served; tests/browser has what a person sees of it."""

import re
from importlib.resources import files

import pytest
from starlette.testclient import TestClient

from tests.service.conftest import MakeClient
from tests.service.keys.made import key

PAGE = files("service.playground")
PARTS = sorted(file.name for file in PAGE.iterdir() if not file.name.startswith("__"))


def test_every_part_is_served_to_everybody(make_client: MakeClient) -> None:
    client = make_client(keys=(key("a", "a", "read"),))
    page = client.get("/")
    assert page.status_code == 200
    assert page.text == (PAGE / "index.html").read_text()
    for name in PARTS:
        part = client.get(f"/playground/{name}")
        assert part.content == (PAGE / name).read_bytes()
    assert client.get("/v1/bundle").status_code == 401


def test_nothing_but_its_own_files_may_run_in_it(client: TestClient) -> None:
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'self'" in policy
    assert page.headers["cache-control"] == "no-cache"
    # It would not run what stands in the page itself, so nothing may.
    assert re.findall(r"<script[^>]*>", page.text) == [
        '<script type="module" src="playground/app.js">'
    ]
    assert not re.search(r" style=| on[a-z]+=|https?://", page.text)


def test_what_it_loads_is_there(client: TestClient) -> None:
    names = set(re.findall(r"playground/([\w.]+)", client.get("/").text))
    for name in PARTS:
        if name.endswith(".js"):
            imports = re.findall(r'from "\./([\w.]+)"', client.get(f"/playground/{name}").text)
            names.update(imports)
    assert names == set(PARTS) - {"index.html"}


@pytest.mark.parametrize("name", ["__init__.py", "nothing.js", "..%2fapp.py", "%2e%2e%2fapp.py"])
def test_no_other_file_is_served(client: TestClient, name: str) -> None:
    assert client.get(f"/playground/{name}").status_code == 404


def test_it_is_left_out_where_it_is_not_wanted(make_client: MakeClient) -> None:
    client = make_client(playground=False)
    assert client.get("/").status_code == 404
    assert client.get("/playground/app.js").status_code == 404
    assert client.get("/v1/bundle").status_code == 200


def test_every_word_is_there_in_both_languages() -> None:
    """And each that the page asks for is among them."""
    words = (PAGE / "words.js").read_text()
    english, chinese = re.findall(r"(?s)\n  (?:en|zh): \{\n(.*?)\n  \},", words)
    # The tables and sentences within are of no interest.
    names = [
        re.findall(r"(?:^|, |\n)\s*(\w+): ", re.sub(r'"[^"]*"|`[^`]*`|\{[^}]*\}', "''", text))
        for text in (english, chinese)
    ]
    assert names[0] == names[1]
    code = "".join((PAGE / name).read_text() for name in PARTS if name != "words.js")
    asked = set(re.findall(r'\bt\("(\w+)"|data-t="(\w+)"|among\("(\w+)"', code))
    missing = {name for found in asked for name in found if name} - set(names[0])
    assert not missing
