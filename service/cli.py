"""`sidrec …`: the one place that wires both wings together for the command line."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from service.settings import Settings, SettingsInvalid, load_settings, settings_table

cli = typer.Typer(
    help="Recommendations by generative recommenders that speak semantic IDs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """The console entry point."""
    cli()


@cli.command()
def serve(
    bundle: Annotated[Path | None, typer.Option(help="Folder of the bundle.")] = None,
    engine: Annotated[str | None, typer.Option(help="What searches: torch or fake.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
) -> None:
    """Answer requests over HTTP. `sidrec settings` lists the variables for everything else."""
    settings = _settings(bundle=bundle, engine=engine, host=host, port=port)
    from service.server import StartFailed, run  # takes seconds, which a wrong setting need not

    try:
        run(settings)
    except StartFailed as error:
        _fail(error.problems, 1)


@cli.command()
def settings() -> None:
    """Print every setting as a Markdown table."""
    typer.echo(settings_table())


def _settings(**options: object) -> Settings:
    try:
        return load_settings(options)
    except SettingsInvalid as error:
        _fail(error.problems, 2)


def _fail(lines: list[str], code: int) -> NoReturn:
    for line in lines:
        typer.echo(line, err=True)
    raise typer.Exit(code)
