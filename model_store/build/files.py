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
"""Fields of sequences and cases."""


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
    except (OSError, OverflowError, pa.ArrowException) as error:
        raise BuildError(f"{path}: {error}") from error
    table = table.rename_columns([names.get(name, name) for name in table.column_names])
    if len(set(table.column_names)) < table.num_columns:
        raise BuildError(f"{path}: two columns have one name: {', '.join(table.column_names)}")
    for i, name in enumerate(table.column_names):
        if name in IDS and not pa.types.is_string(table.schema.field(i).type):
            table = table.set_column(i, name, cast(table.column(i), pa.string(), path, name))
    return table


def cast(column: pa.ChunkedArray, kind: pa.DataType, path: Path, name: str) -> pa.ChunkedArray:
    """A column as another type. Raises `BuildError` naming file and column."""
    try:
        return column.cast(kind)
    except pa.ArrowException as error:
        raise BuildError(f"{path}: {name}: {error}") from error


def read_rows(path: Path, columns: Mapping[str, str] | None = None) -> list[Row]:
    """The records of a file, without their empty fields. Raises `BuildError`."""
    found = _records(path, columns)
    return [{name: value for name, value in row.items() if value is not None} for row in found]


def read_clicks(path: Path, columns: Mapping[str, str] | None = None) -> list[Row]:
    """Sequences or cases: records whose `LISTS` are lists, whose profile is text by name, and
    whose scene is text. Raises `BuildError`, naming the record at fault."""
    rows = read_rows(path, columns)
    for number, row in enumerate(rows, 1):
        for name in LISTS:
            if isinstance(row.get(name), str):
                row[name] = row[name].split()
            elif not isinstance(row.get(name, []), list):
                raise BuildError(f"{path}, record {number}: {name} is not a list: {row[name]!r}")
        if not isinstance(row.get("profile", {}), dict):
            raise BuildError(f"{path}, record {number}: profile has no names: {row['profile']!r}")
        if "profile" in row:
            row["profile"] = texts_of(row["profile"])
        if "scene" in row:
            row["scene"] = str(row["scene"])
    return rows


def texts_of(profile: Mapping[Any, Any]) -> dict[str, str]:
    """A profile as text, without what is not known."""
    return {str(name): str(value) for name, value in profile.items() if value is not None}


def _records(path: Path, columns: Mapping[str, str] | None) -> list[Row]:
    if _kind(path) == ".jsonl":
        return _read_lines(path, {theirs: ours for ours, theirs in (columns or {}).items()})
    found: list[Row] = read_table(path, columns).to_pylist()
    return found


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
