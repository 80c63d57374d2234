"""`sidrec keys …`"""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError

from service.keys.file import KeysInvalid, entry, read_keys
from service.keys.key import SCOPES, Key, digest, new_secret

app = typer.Typer(help="API keys.", no_args_is_help=True)


@app.command()
def new(
    name: Annotated[str, typer.Option(help="Whose key it is: shown in logs and metrics.")],
    scopes: Annotated[str, typer.Option(help=f"Comma-separated, of {', '.join(SCOPES)}.")],
    rate: Annotated[str | None, typer.Option(help="Such as 100/second.")] = None,
    batch: Annotated[int | None, typer.Option(help="Most items of one request.")] = None,
    expires: Annotated[
        str | None, typer.Option(help="Such as 2027-01-31T00:00:00Z; with a timezone.")
    ] = None,
) -> None:
    """Make a key: the secret on standard error, once; what the file of keys needs on standard
    output."""
    secret = new_secret()
    fields = {
        "name": name,
        "sha256": digest(secret),
        "scopes": [scope.strip() for scope in scopes.split(",")],
        "rate": rate,
        "batch": batch,
        "expires": expires,
    }
    try:
        key = Key.model_validate(fields)
    except ValidationError as error:
        _fail(f"--{details['loc'][0]}: {details['msg']}" for details in error.errors())
    typer.echo(secret, err=True)
    typer.echo(entry(key), nl=False)


@app.command()
def check(file: Annotated[Path, typer.Argument(help="The file of keys.")]) -> None:
    """Read a file of keys as the service would, and list what it allows."""
    try:
        keys = read_keys(file)
    except KeysInvalid as error:
        _fail(error.problems)
    for key in keys:
        parts = [",".join(sorted(key.scopes)), key.rate, key.batch and f"batches of {key.batch}"]
        if key.expires is not None:
            parts.append(f"{'expired' if key.expired else 'until'} {_shown(key.expires)}")
        typer.echo(f"{key.name}: {', '.join(part for part in parts if part)}")


def _shown(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _fail(lines: Iterable[str]) -> NoReturn:
    for line in lines:
        typer.echo(line, err=True)
    raise typer.Exit(1)
