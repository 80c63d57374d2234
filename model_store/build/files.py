"""Tables of records in JSON lines, CSV or Parquet, gzipped or not.

Ids are text whatever they look like, so that `007` stays `007`. In a CSV a list is text with
spaces between its entries.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from model_store.catalogue import read_json_lines
from model_store.errors import BuildError, BundleError

Row = dict[str, Any]

IDS = ("item_id", "user_id", "target", "sid")
LISTS = ("sequence", "history", "timestamps", "types", "scenes")


def read_table(path: Path, columns: Mapping[str, str] | None = None) -> pa.Table:
    """The records of a file, one column a field; `columns` maps our names to the file's.

    Raises `BuildError` naming the file, and the line where that is known.
    """
    names = {theirs: ours for ours, theirs in (columns or {}).items()}
    kind = _kind(path)
    try:
        if kind == ".jsonl":
            rows = _read_lines(path, names)
            fields = dict.fromkeys(name for row in rows for name in row)  # Arrow asks row 1 only
            return pa.Table.from_pylist([{name: row.get(name) for name in fields} for row in rows])
        table = _read_csv(path, names) if kind == ".csv" else pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise BuildError(f"{path}: {error}") from error
    table = table.rename_columns([names.get(name, name) for name in table.column_names])
    for i, name in enumerate(table.column_names):
        if name in IDS and not pa.types.is_string(table.schema.field(i).type):
            table = table.set_column(i, name, table.column(i).cast(pa.string()))
    return table


def read_rows(path: Path, columns: Mapping[str, str] | None = None) -> list[Row]:
    """The records of a file, without their empty fields. Raises `BuildError`."""
    if _kind(path) == ".jsonl":
        found = _read_lines(path, {theirs: ours for ours, theirs in (columns or {}).items()})
    else:
        found = read_table(path, columns).to_pylist()
    rows = []
    for row in found:
        kept = {name: value for name, value in row.items() if value is not None}
        for name in LISTS:
            if isinstance(kept.get(name), str):
                kept[name] = kept[name].split()
        rows.append(kept)
    return rows


def write_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> Path:
    """Writes JSON lines."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def _read_csv(path: Path, names: Mapping[str, str]) -> pa.Table:
    theirs = {ours: name for name, ours in names.items()}
    text = {theirs.get(name, name): pa.string() for name in (*IDS, *LISTS)}
    convert = pyarrow.csv.ConvertOptions(column_types=text, strings_can_be_null=True)
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    with pa.input_stream(path) as stream:  # uncompresses by the file's name
        return pyarrow.csv.read_csv(stream, convert_options=convert, parse_options=parse)


def _read_lines(path: Path, names: Mapping[str, str]) -> list[Row]:
    try:
        rows = [{names.get(k, k): v for k, v in row.items()} for row in read_json_lines(path)]
    except BundleError as error:
        raise BuildError("\n".join(error.problems)) from error
    for row in rows:
        row |= {name: str(row[name]) for name in IDS if row.get(name) is not None}
    return rows


def _kind(path: Path) -> str:
    kind = path.suffixes[-2] if path.suffix == ".gz" and len(path.suffixes) > 1 else path.suffix
    if kind not in (".jsonl", ".csv", ".parquet"):
        raise BuildError(f"{path}: neither .jsonl, .csv nor .parquet")
    return kind
