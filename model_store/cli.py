"""`sidrec bundle …`: make, look into and check bundles."""

import json
from pathlib import Path
from typing import Annotated, NoReturn

import numpy as np
import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table

from model_store.bundle import Bundle, validate
from model_store.errors import BundleError, ModelStoreError
from model_store.prompt import ProfileField, PromptTemplate
from model_store.report import metrics_table
from model_store.sid import END
from model_store.store import Store, create_bundle

app = typer.Typer(help="Make, look into and check bundles.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="the folder of a bundle version")]


@app.command()
def create(
    model: Annotated[Path, typer.Option(help="model folder in the Hugging Face layout")],
    items: Annotated[Path, typer.Option(help="JSON lines: item_id, sid and any attributes")],
    template: Annotated[Path, typer.Option(help="prompt text with {history}, maybe {profile}")],
    name: Annotated[str, typer.Option(help="name of the bundle")],
    out: Annotated[Path, typer.Option(help="the store: a folder that keeps name/version/")],
    separator: Annotated[str, typer.Option(help="text between two SIDs of the history")] = ", ",
    profile: Annotated[
        Path | None, typer.Option(help="JSON list of profile fields: name, text, values, unknown")
    ] = None,
    cold: Annotated[
        bool, typer.Option("--cold", help="the model was trained on prompts without a history too")
    ] = False,
    quantizer: Annotated[
        Path | None, typer.Option(help="folder with what gives a new item its SID")
    ] = None,
    adapters: Annotated[
        Path | None, typer.Option(help="folder with a LoRA adapter (PEFT) for each scene")
    ] = None,
) -> None:
    """Make a bundle from a fine-tuned model, an items file and a prompt template."""
    try:
        text = template.read_text().removesuffix("\n")
        fields = TypeAdapter(tuple[ProfileField, ...]).validate_json(
            profile.read_text() if profile else "[]"
        )
        prompt = PromptTemplate(text=text, separator=separator, profile=fields, cold=cold)
        path = create_bundle(
            Store(out),
            name=name,
            model=model,
            items=items,
            prompt=prompt,
            quantizer=quantizer,
            adapters=adapters,
        )
    except ValidationError as error:
        fail([f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()])
    except BundleError as error:
        fail(error.problems)
    except (ModelStoreError, OSError) as error:
        fail([str(error)])
    typer.echo(path)


@app.command("validate")
def check(path: Folder) -> None:
    """Check everything that loading checks; one line per problem."""
    if problems := validate(path):
        fail(problems)
    typer.echo(f"{path}: fine")


@app.command()
def inspect(path: Folder) -> None:
    """Show what is inside a bundle."""
    try:
        bundle = Bundle.load(path)
    except BundleError as error:
        fail(error.problems)
    console = Console()
    console.print(_overview(bundle))
    console.print(_levels(bundle))
    if bundle.manifest.metrics:
        console.print(metrics_table(bundle.manifest.metrics, "held-out metrics"))


def fail(lines: list[str]) -> NoReturn:
    """Prints one line per problem to standard error and exits with 1."""
    for line in lines:
        typer.echo(line, err=True)
    raise typer.Exit(1)


def _overview(bundle: Bundle) -> Table:
    config = json.loads((bundle.model_path / "config.json").read_text())
    weights = sum(file.stat().st_size for file in bundle.model_path.glob("*.safetensors"))
    sids, shared = np.unique(bundle.catalogue.codes, axis=0, return_counts=True)
    table = Table("", "", title=f"{bundle.name} {bundle.version}", show_header=False)
    table.columns[1].overflow = "fold"
    rows = {
        "created": f"{bundle.manifest.created:%Y-%m-%d %H:%M} UTC",
        "items": f"{len(bundle.catalogue):,}",
        "SIDs": f"{len(sids):,}, such as {bundle.sids[0]}",
        "collisions": f"{int(shared[shared > 1].sum()):,} items share a SID, at most"
        f" {int(shared.max())} the same",
        "model": f"{config['architectures'][0]}, {config['num_hidden_layers']} layers of"
        f" {config['hidden_size']}, {config['vocab_size']:,} tokens",
        "weights": f"{weights / 1e6:.1f} MB",
        "positions": f"{bundle.max_length:,}, of which {bundle.max_prompt_tokens:,} for a prompt",
        "trie": f"{bundle.trie.nbytes / len(bundle.catalogue):.0f} bytes per item",
        "prompt": bundle.manifest.prompt.text,
        "scenes": ", ".join(bundle.manifest.prompt.scenes) or "none",
        "cold starts": "asked by profile and scene" if bundle.cold else "not trained on",
        "adapters": ", ".join(f"{s} (rank {a.rank})" for s, a in bundle.adapters.items()) or "none",
        "quantizer": "yes" if (bundle.path / "quantizer").is_dir() else "no",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _levels(bundle: Bundle) -> Table:
    table = Table(title="codebooks")
    for column in ("level", "token", "codes", "in use", "perplexity", "prefixes"):
        table.add_column(column, justify="right")
    for i, level in enumerate(bundle.spec.levels):
        codes = bundle.catalogue.codes[:, i]
        count = np.bincount(codes[codes != END], minlength=level.size)
        share = count[count > 0] / count.sum()
        table.add_row(
            str(i + 1) + (" (extra)" if bundle.spec.extra and i + 1 == bundle.spec.depth else ""),
            level.template.format("…"),
            f"{level.size:,}",
            f"{(count > 0).mean():.0%}",
            f"{np.exp(-(share * np.log(share)).sum()):,.0f}",
            f"{bundle.trie.n_nodes(i + 1):,}",
        )
    return table
