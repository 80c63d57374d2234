"""Asks a service that runs, for commands: an answer, or an end with what a problem says."""

import json
import os
import urllib.error
import urllib.request
from typing import Annotated, Any, NoReturn

import typer

Url = Annotated[str, typer.Option(envvar="SIDREC_URL", help="Of the service.", show_default=True)]
DEFAULT_URL = "http://127.0.0.1:8000"
KEY = "SIDREC_KEY"
"""The variable with the key to send; no option, because others see a command line."""

_PATIENCE_S = 3600.0


def ask(method: str, url: str, path: str, body: Any = None) -> Any:
    """The answer's document; ends the program with what a problem says."""
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(KEY):
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(url.rstrip("/") + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:
            content = answer.read()
    except urllib.error.HTTPError as error:
        with error:
            fail(_problem(error), 1)
    except (OSError, ValueError) as error:
        fail([f"{url}: {getattr(error, 'reason', error)}"], 1)
    return json.loads(content) if content else None


def _problem(error: urllib.error.HTTPError) -> list[str]:
    try:
        problem = json.loads(error.read())
        return [f"{problem['title']}: {problem['detail']}"]
    except (ValueError, KeyError, TypeError):
        return [f"{error.url}: {error.code} {error.reason}"]


def fail(lines: list[str], code: int) -> NoReturn:
    """Prints one line per problem to standard error and ends with this exit code."""
    for line in lines:
        typer.echo(line, err=True)
    raise typer.Exit(code)
