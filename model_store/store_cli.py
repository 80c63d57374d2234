"""`sidrec store …`: what is in a store, which version is the champion, and what may go."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from model_store.cli import fail
from model_store.diff import Difference, compare_bundles
from model_store.errors import BundleError, ModelStoreError
from model_store.remote import AnyStore, RemoteStore, open_store
from model_store.versions import CHAMPION, Alias

app = typer.Typer(help="Versions of bundles: which one is served, and why.", no_args_is_help=True)

StoreAddress = Annotated[str, typer.Argument(help="folder of a store, or an address (s3://…)")]
Reference = Annotated[str, typer.Argument(help="name@3, name@champion, or name: the newest")]
Name = Annotated[str, typer.Argument(help="name of a bundle")]
AliasName = Annotated[str, typer.Option("--alias", help="name of the alias")]


@app.command("list")
def show(store: StoreAddress, name: Annotated[str | None, typer.Argument()] = None) -> None:
    """Show bundles, their versions, and what each alias has named."""
    with _problems():
        opened = open_store(store)
        for each in [name] if name else opened.names():
            Console().print(_versions(opened, each))


@app.command()
def promote(store: StoreAddress, reference: Reference, alias: AliasName = CHAMPION) -> None:
    """Let an alias name a version."""
    with _problems():
        opened = open_store(store)
        name, version = opened.resolve(reference)
        _say(name, alias, opened.promote(name, version, alias))


@app.command()
def rollback(store: StoreAddress, name: Name, alias: AliasName = CHAMPION) -> None:
    """Let an alias name what it named before."""
    with _problems():
        _say(name, alias, open_store(store).rollback(name, alias))


@app.command()
def fetch(store: StoreAddress, reference: Reference) -> None:
    """Print the local folder of a version, downloaded and checked if the store is elsewhere."""
    with _problems():
        typer.echo(open_store(store).fetch(reference))


@app.command()
def diff(store: StoreAddress, old: Reference, new: Reference) -> None:
    """Show what changed between two versions."""
    with _problems():
        opened = open_store(store)
        found = compare_bundles(opened.fetch(old), opened.fetch(new))
        for table in _difference(found, old, new):
            Console().print(table)


@app.command()
def gc(
    store: StoreAddress,
    name: Name,
    keep: Annotated[int, typer.Option(min=1, help="newest versions to keep")] = 3,
) -> None:
    """Remove versions that are neither new, nor aliased, nor what an alias would roll back to."""
    with _problems():
        opened = open_store(store)
        if isinstance(opened, RemoteStore):
            fail([f"{store}: only a local store can be locked against a promotion meanwhile"])
        gone = opened.collect(name, keep=keep)
        typer.echo(f"removed {', '.join(map(str, gone)) or 'nothing'}")


@contextmanager
def _problems() -> Iterator[None]:
    """Turns what goes wrong into lines and exit code 1."""
    try:
        yield
    except BundleError as error:
        fail(error.problems)
    except (ModelStoreError, OSError) as error:
        fail([str(error)])


def _say(name: str, alias: str, state: Alias) -> None:
    before = "" if state.previous is None else f"; a rollback goes to {state.previous}"
    typer.echo(f"{name}@{alias} is version {state.version}{before}")


def _versions(store: AnyStore, name: str) -> Table:
    aliases = store.aliases(name)
    table = Table(title=name)
    for column in ("version", "aliases", "steps"):
        table.add_column(column)
    for version in store.versions(name):
        named = [alias for alias, state in aliases.items() if state.version == version]
        steps = [
            f"{step.at:%Y-%m-%d %H:%M} {alias}: {step.action}"
            for alias, state in aliases.items()
            for step in state.history
            if step.version == version
        ]
        table.add_row(str(version), ", ".join(named), "\n".join(steps))
    return table


def _difference(found: Difference, old: str, new: str) -> Iterator[Table]:
    items = Table(title="items")
    for column in ("", "number", "such as"):
        items.add_column(column)
    items.add_row("in both", f"{found.kept:,}", "")
    items.add_row("added", f"{len(found.added):,}", ", ".join(found.added[:3]))
    items.add_row("removed", f"{len(found.removed):,}", ", ".join(found.removed[:3]))
    moved = [f"{i}: {before} → {after}" for i, (before, after) in list(found.moved.items())[:3]]
    items.add_row("other SID", f"{len(found.moved):,}", "\n".join(moved))
    yield items
    if found.settings:
        yield _sides("SID spec and prompt", old, new, found.settings)
    if changed := {name: pair for name, pair in found.metrics.items() if pair[0] != pair[1]}:
        yield _sides("metrics that changed", old, new, changed)


def _sides(title: str, old: str, new: str, rows: dict[str, tuple[Any, Any]]) -> Table:
    table = Table(title=title)
    for column in ("", old, new):
        table.add_column(column, overflow="fold")
    for name, pair in rows.items():
        table.add_row(name, *(_text(value) for value in pair))
    return table


def _text(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
