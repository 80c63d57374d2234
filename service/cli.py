"""`sidrec …`: the one place that wires both wings together for the command line."""

import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, NoReturn

import typer

from model_store.cli import app as bundle_commands
from model_store.errors import BundleError, ModelStoreError
from model_store.store import Store
from model_store.store_cli import app as store_commands
from service.server import StartFailed, run
from service.settings import Settings, SettingsInvalid, load_settings, settings_table

cli = typer.Typer(
    help="Recommendations by generative recommenders that speak semantic IDs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
cli.add_typer(bundle_commands, name="bundle")
cli.add_typer(store_commands, name="store")


def main() -> None:
    """The console entry point."""
    cli()


@cli.command()
def serve(
    bundle: Annotated[Path | None, typer.Option(help="Folder of the bundle.")] = None,
    engine: Annotated[str | None, typer.Option(help="What searches: torch, vllm or fake.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
) -> None:
    """Answer requests over HTTP. `sidrec settings` lists the variables for everything else."""
    settings = _settings(bundle=bundle, engine=engine, host=host, port=port)
    try:
        run(settings)
    except StartFailed as error:
        _fail(error.problems, 1)


@cli.command()
def build(
    config: Annotated[Path, typer.Argument(help="TOML file; see model_store/build/configs.")],
    out: Annotated[Path, typer.Option(help="The store: a folder that keeps name/version/.")],
) -> None:
    """Train a model from a configuration, measure it, and publish it as a bundle."""
    # What building needs and serving does not is imported here.
    try:
        from model_store.build.config import load_config
        from model_store.build.pipeline import build as run_build
        from service.offline import engine_ranker
    except ModuleNotFoundError as error:
        _fail([f"{error.name} is missing: pip install 'sidrec[build]'"], 1)
    work = Path(mkdtemp(prefix="sidrec-build-"))
    try:
        path = run_build(load_config(config), Store(out), work, engine_ranker)
        shutil.rmtree(work)
    except BundleError as error:
        _fail(error.problems, 1)
    except ModelStoreError as error:
        _fail(str(error).splitlines(), 1)
    finally:
        # What took an hour to train shall not be lost to what went wrong behind it.
        if any(work.glob("*")):
            typer.echo(f"what was made so far is kept in {work}", err=True)
    typer.echo(path)


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
