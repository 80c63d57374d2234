"""The committed OpenAPI document is that of the application, and has an example where it counts."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from service.api.openapi import document
from service.cli import cli

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(COMMITTED.read_text())
    return found


def test_the_committed_document_is_current() -> None:
    assert COMMITTED.read_text() == document() + "\n", "run: sidrec openapi > docs/openapi.json"


def test_the_command_prints_it() -> None:
    assert CliRunner().invoke(cli, ["openapi"]).output == document() + "\n"


def test_every_body_has_an_example(committed: dict[str, Any]) -> None:
    operations = [o for path in committed["paths"].values() for o in path.values()]
    bodies = [
        body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for operation in operations
        if (body := operation.get("requestBody"))
    ]
    assert len(bodies) >= 4
    for name in bodies:
        schema = committed["components"]["schemas"][name]
        assert schema.get("examples"), name


def test_every_operation_says_what_it_answers(committed: dict[str, Any]) -> None:
    for path, operations in committed["paths"].items():
        for method, operation in operations.items():
            described = operation.get("description", "")
            assert described.endswith((".", ":")), f"{method} {path} has no description"
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert list(answer["content"]) == ["application/problem+json"]
