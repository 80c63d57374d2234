"""`sidrec sids …`: look at the SIDs of a catalogue, and give SIDs to later items."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from model_store.bundle import MANIFEST, Bundle
from model_store.catalogue import read_json_lines
from model_store.cli import fail
from model_store.errors import BundleError, ModelStoreError
from model_store.sid import Codes, SidSpec, infer_spec

app = typer.Typer(help="SIDs of a catalogue, and of later items.", no_args_is_help=True)


@app.command()
def add(
    bundle: Annotated[Path, typer.Argument(help="the folder of a bundle version")],
    items: Annotated[Path, typer.Argument(help="JSON lines: item_id and the text attributes")],
    out: Annotated[Path, typer.Option(help="receives the items with their SIDs, JSON lines")],
    drift: Annotated[Path | None, typer.Option(help="receives the drift as JSON")] = None,
) -> None:
    """Give later items the SIDs of a bundle's frozen quantizer, and say whether to retrain."""
    try:
        # What making SIDs needs and serving does not is imported here.
        from model_store.build.sids.incremental import add_items

        added = add_items(Bundle.load(bundle), list(read_json_lines(items)))
        lines = (json.dumps(item, ensure_ascii=False) + "\n" for item in added.items)
        out.write_text("".join(lines))
        if drift is not None:
            drift.write_text(json.dumps(added.drift and added.drift.as_json(), indent=2) + "\n")
    except ModuleNotFoundError as error:
        fail([f"{error.name} is missing: pip install 'sidrec[build]'"])
    except BundleError as error:
        fail(error.problems)
    except (ModelStoreError, OSError) as error:
        fail([str(error)])
    console = Console()
    console.print(
        f"{len(added.items) - added.known:,} new items, {added.shared:,} of which share a SID;"
        f" {added.known:,} were in the bundle and keep theirs"
    )
    if added.drift is not None:
        console.print(added.drift.table())
        console.print(added.drift.advice)
    elif added.known < len(added.items):
        console.print("drift is not known: the quantizer keeps no reference errors")


@app.command()
def report(
    source: Annotated[Path, typer.Argument(help="a bundle's folder, or JSON lines with `sid`")],
    by: Annotated[str, typer.Option(help="attribute whose purity is shown")] = "category",
    plot: Annotated[Path | None, typer.Option(help="receives a picture")] = None,
    out: Annotated[Path | None, typer.Option(help="receives the report as JSON")] = None,
) -> None:
    """Show use of the codebooks, collisions and the purity of prefixes, whoever made the SIDs."""
    try:
        from model_store.build.sids.report import report as report_of
        from model_store.build.sids.report import sid_table
        from model_store.build.sids.sid_plot import plot_sids

        spec, codes, rows = _read(source)
        sizes = [level.size for level in spec.levels[: spec.depth - spec.extra]]
        attribute = [row.get(by) for row in rows]
        made = report_of(codes, sizes, attribute if any(attribute) else None)
        if out is not None:
            out.write_text(json.dumps(made.as_json(), indent=2) + "\n")
        if plot is not None and not plot_sids(made, codes, plot):
            fail(["matplotlib is missing: pip install 'sidrec[plot]'"])
    except ModuleNotFoundError as error:
        fail([f"{error.name} is missing: pip install 'sidrec[build]'"])
    except BundleError as error:
        fail(error.problems)
    except (ModelStoreError, OSError) as error:
        fail([str(error)])
    Console().print(sid_table(made, str(source)))


def _read(source: Path) -> tuple[SidSpec, Codes, list[dict[str, Any]]]:
    """The SIDs of a bundle, or of an items file."""
    if (source / MANIFEST).is_file():
        bundle = Bundle.load(source)
        return bundle.spec, bundle.catalogue.codes, bundle.catalogue.table.to_pylist()
    rows = list(read_json_lines(source))
    sids = [row.get("sid") for row in rows]
    if not all(isinstance(sid, str) for sid in sids):
        raise BundleError([f"{source.name}: {sum(not s for s in sids)} items have no sid"])
    spec = infer_spec([str(sid) for sid in sids])
    return spec, spec.parse([str(sid) for sid in sids]), rows
