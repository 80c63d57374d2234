"""`sidrec models …`: a thin client of the models' endpoints of a service that runs."""

from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Table

from service.asking import DEFAULT_URL, Url, ask, fail

app = typer.Typer(
    help="Which versions a running service has loaded, and which one answers.",
    no_args_is_help=True,
)

Reference = Annotated[str, typer.Argument(help="name@3, such as demo@3")]
_MIB = 1 << 20


@app.command("list")
def show(url: Url = DEFAULT_URL) -> None:
    """Show the versions that are loaded."""
    _print(ask("GET", url, "/v1/models"))


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
    model = ask("POST", url, "/v1/models", {k: v for k, v in wanted.items() if v is not None})
    seconds = model["load_seconds"]
    typer.echo(f"{model['name']}@{model['version']} is loaded, which took {seconds} s")


@app.command("warm-up")
def warm_up(reference: Reference, url: Url = DEFAULT_URL) -> None:
    """Search with a version that is loaded."""
    done = ask("POST", url, f"{_path(reference)}/warm-up")
    typer.echo(f"{done['searches']} searches in {done['seconds']} s")


@app.command()
def activate(reference: Reference, url: Url = DEFAULT_URL) -> None:
    """Let a version that is loaded answer from now on."""
    _print(ask("POST", url, f"{_path(reference)}/activate"))


@app.command()
def rollback(url: Url = DEFAULT_URL) -> None:
    """Let the version answer that did before."""
    _print(ask("POST", url, "/v1/models/rollback"))


@app.command()
def unload(reference: Reference, url: Url = DEFAULT_URL) -> None:
    """Free a version, when the last request that is with it has ended."""
    ask("DELETE", url, _path(reference))
    typer.echo(f"{reference} is unloaded")


def _path(reference: str) -> str:
    name, _, number = reference.partition("@")
    return f"/v1/models/{quote(name, safe='')}/{_number(number)}"


def _number(text: str) -> int:
    if not text.isdecimal():
        fail([f"{text!r} is no version: name one as in demo@3"], 2)
    return int(text)


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
