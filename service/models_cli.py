"""`sidrec models …`: a thin client of the models' endpoints of a service that runs."""

import json
import os
import urllib.error
import urllib.request
from typing import Annotated, Any, NoReturn
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(
    help="Which versions a running service has loaded, and which one answers.",
    no_args_is_help=True,
)

Url = Annotated[str, typer.Option(envvar="SIDREC_URL", help="Of the service.", show_default=True)]
DEFAULT_URL = "http://127.0.0.1:8000"
KEY = "SIDREC_KEY"
"""The variable with the key to send; no option, because others see a command line."""

Reference = Annotated[str, typer.Argument(help="name@3, such as demo@3")]
_PATIENCE_S = 3600.0
_MIB = 1 << 20


@app.command("list")
def show(url: Url = DEFAULT_URL) -> None:
    """Show the versions that are loaded."""
    _print(_ask("GET", url, "/v1/models"))


@app.command()
def load(
    reference: Annotated[
        str | None,
        typer.Argument(help="name@3, or name: the champion; by default that of the store"),
    ] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Load a version beside those that answer, and warm it up."""
    name, _, number = (reference or "").partition("@")
    wanted = {"name": name or None, "version": _number(number) if number else None}
    model = _ask("POST", url, "/v1/models", {k: v for k, v in wanted.items() if v is not None})
    seconds = model["load_seconds"]
    typer.echo(f"{model['name']}@{model['version']} is loaded, which took {seconds} s")


@app.command("warm-up")
def warm_up(reference: Reference, url: Url = DEFAULT_URL) -> None:
    """Search with a version that is loaded."""
    done = _ask("POST", url, f"{_path(reference)}/warm-up")
    typer.echo(f"{done['searches']} searches in {done['seconds']} s")


@app.command()
def activate(reference: Reference, url: Url = DEFAULT_URL) -> None:
    """Let a version that is loaded answer from now on."""
    _print(_ask("POST", url, f"{_path(reference)}/activate"))


@app.command()
def rollback(url: Url = DEFAULT_URL) -> None:
    """Let the version answer that did before."""
    _print(_ask("POST", url, "/v1/models/rollback"))


@app.command()
def unload(reference: Reference, url: Url = DEFAULT_URL) -> None:
    """Free a version, when the last request that is with it has ended."""
    _ask("DELETE", url, _path(reference))
    typer.echo(f"{reference} is unloaded")


def _path(reference: str) -> str:
    name, _, number = reference.partition("@")
    return f"/v1/models/{quote(name, safe='')}/{_number(number)}"


def _number(text: str) -> int:
    if not text.isdecimal():
        _fail([f"{text!r} is no version: name one as in demo@3"], 2)
    return int(text)


def _ask(method: str, url: str, path: str, body: Any = None) -> Any:
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
            _fail(_problem(error), 1)
    except (OSError, ValueError) as error:
        _fail([f"{url}: {getattr(error, 'reason', error)}"], 1)
    return json.loads(content) if content else None


def _problem(error: urllib.error.HTTPError) -> list[str]:
    try:
        problem = json.loads(error.read())
        return [f"{problem['title']}: {problem['detail']}"]
    except (ValueError, KeyError, TypeError):
        return [f"{error.url}: {error.code} {error.reason}"]


def _print(found: Any) -> None:
    table = Table()
    for column in ("version", "", "requests", "items", "change", "loaded", "took, s", "MiB"):
        table.add_column(column, justify="left" if column in ("version", "") else "right")
    previous = found["previous"] or {}
    for model in found["models"]:
        before = (model["name"], model["version"]) == (
            previous.get("name"),
            previous.get("version"),
        )
        table.add_row(
            f"{model['name']}@{model['version']}",
            "active" if model["active"] else "before" if before else "",
            str(model["requests"]),
            f"{model['items']:,}",
            str(model["catalogue_version"]),
            model["loaded_at"][:19].replace("T", " "),
            f"{model['load_seconds']:.2f}",
            f"{sum(model['memory'].values()) / _MIB:,.0f}",
        )
    Console().print(table)
    if found["loading"]:
        typer.echo(f"{found['loading']} is being loaded")


def _fail(lines: list[str], code: int) -> NoReturn:
    for line in lines:
        typer.echo(line, err=True)
    raise typer.Exit(code)
