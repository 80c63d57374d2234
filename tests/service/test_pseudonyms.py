"""What users are called in log lines."""

import json

import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from service.pseudonyms import Pseudonyms
from tests.service.conftest import MakeClient


def test_a_key_gives_everybody_a_name_that_says_nothing() -> None:
    names, again = Pseudonyms("key"), Pseudonyms("key")
    assert names.of("ann") == again.of("ann") != names.of("bob")
    assert "ann" not in names.of("ann")
    assert Pseudonyms("other").of("ann") != names.of("ann")
    assert Pseudonyms().of("ann") != Pseudonyms().of("ann")
    assert Pseudonyms("x" * 1000).of("王梅") != Pseudonyms("x" * 1001).of("王梅")


def test_in_clear_where_that_was_said() -> None:
    assert Pseudonyms("key", clear=True).of("ann") == "ann"


@pytest.mark.parametrize("clear", [True, False])
def test_lines_name_whom_they_are_about(make_client: MakeClient, clear: bool) -> None:
    client = make_client(log_user_ids=clear, log_user_key="key")
    with capture_logs([merge_contextvars]) as lines:
        client.post("/v1/recommendations", json={"user_id": "ann-in-clear"})
        client.put("/v1/users/ann-in-clear/profile", json={"profile": {}})
        client.get("/v1/users/ann-in-clear/history")
        client.delete("/v1/users/ann-in-clear")
        client.post("/v1/recommendations", json={"history": ["item-1"]})
    *about, nobody = [line.get("user") for line in lines if line["event"] == "request"]
    assert set(about) == {Pseudonyms("key", clear=clear).of("ann-in-clear")}
    assert len(about) == 4
    assert nobody is None
    assert ("ann-in-clear" in json.dumps(lines, default=str)) == clear
