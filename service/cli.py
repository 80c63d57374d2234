"""`sidrec …`: the one place that wires both wings together for the command line."""

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from model_store.cli import app as bundle_commands
from model_store.errors import BundleError, ModelStoreError
from model_store.remote import open_store
from model_store.sids_cli import app as sids_commands
from model_store.store_cli import app as store_commands
from model_store.versions import Versions
from service.api.openapi import document
from service.experiments.cli import app as experiment_commands
from service.keys.cli import app as keys_commands
from service.models_cli import app as models_commands
from service.server import StartFailed, run
from service.settings import Settings, SettingsInvalid, load_settings, settings_table

cli = typer.Typer(
    help="Recommendations by generative recommenders that speak semantic IDs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
cli.add_typer(bundle_commands, name="bundle")
cli.add_typer(sids_commands, name="sids")
cli.add_typer(store_commands, name="store")
cli.add_typer(models_commands, name="models")
cli.add_typer(experiment_commands, name="experiments")
cli.add_typer(keys_commands, name="keys")


def main() -> None:
    """The console entry point."""
    cli()


@cli.command()
def serve(
    bundle: Annotated[Path | None, typer.Option(help="Folder of the bundle.")] = None,
    store: Annotated[
        str | None, typer.Option(help="Folder or address of a store, whose champion is served.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="What searches: torch, vllm or fake.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
) -> None:
    """Answer requests over HTTP. `sidrec settings` lists the variables for everything else."""
    settings = _settings(bundle=bundle, store=store, engine=engine, host=host, port=port)
    try:
        run(settings)
    except StartFailed as error:
        _fail(error.problems, 1)


@cli.command()
def build(
    config: Annotated[Path, typer.Argument(help="TOML file; see model_store/build/configs.")],
    out: Annotated[str, typer.Option(help="The store: a folder, or an address (s3://…).")],
    work: Annotated[
        Path | None, typer.Option(help="Folder of the stages' files; .sidrec/build/NAME.")
    ] = None,
    stage: Annotated[list[str] | None, typer.Option(help="Run only this one; repeatable.")] = None,
) -> None:
    """Train a model from a configuration, measure it, and publish it as a bundle.

    Stages that are finished and whose inputs have not changed are not run again, so that a build
    that was interrupted goes on where it was.
    """
    # What building needs and serving does not is imported here.
    try:
        from model_store.build.config import load_config
        from model_store.build.pipeline import run_stages
        from service.offline import engine_finder
    except ModuleNotFoundError as error:
        _fail([f"{error.name} is missing: pip install 'sidrec[build]'"], 1)
    try:
        loaded = load_config(config)
        folder = work or Path(".sidrec") / "build" / loaded.name
        store: Versions[Any] = open_store(out)
        place = run_stages(loaded, store, folder, engine_finder, stage or ())
    except BundleError as error:
        _fail(error.problems, 1)
    except (ModelStoreError, OSError) as error:
        _fail(str(error).splitlines(), 1)
    if place is not None:
        typer.echo(place)


# These have commands, options and a help of their own.
_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


@cli.command(add_help_option=False, context_settings=_PASSED_ON)
def bench(context: typer.Context) -> None:
    """Measure: engine, trie, service, and more."""
    _measure("bench.cli", context)


@cli.command(add_help_option=False, context_settings=_PASSED_ON)
def load(context: typer.Context) -> None:
    """Send what users do to a service that runs, and report what came back."""
    _measure("bench.load.command", context)


@cli.command()
def settings() -> None:
    """Print every setting as a Markdown table."""
    typer.echo(settings_table())


@cli.command()
def openapi() -> None:
    """Print the OpenAPI document of the service, as `docs/openapi.json` has it."""
    typer.echo(document())


def _measure(module: str, context: typer.Context) -> None:
    # What measuring needs and serving does not is imported there.
    try:
        import_module(module).app(context.args, prog_name=f"sidrec {context.info_name}")
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        _fail([f"{package} is missing: pip install 'sidrec[bench]'"], 1)


def _settings(**options: object) -> Settings:
    try:
        return load_settings(options)
    except SettingsInvalid as error:
        _fail(error.problems, 2)


def _fail(lines: list[str], code: int) -> NoReturn:
    for line in lines:
        typer.echo(line, err=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    main()
