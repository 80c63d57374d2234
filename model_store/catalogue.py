"""The items of a bundle, one row each, in the order of their SIDs.

A row number is therefore also an item's place in the trie. Items that share a SID, between which a
model cannot choose, stand by popularity, then by id. Columns: `item_id`, `title`, `codes`,
`popularity`, and whatever attributes the items came with.
"""

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from model_store.errors import BundleError
from model_store.sid import END, Codes, SidSpec, sort_order

SCENES = "popularity_by_scene"

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Catalogue:
    """table: one row an item; codes: (items, depth), `END` behind a shorter SID."""

    table: pa.Table
    codes: Codes
    _popular: dict[str | None, npt.NDArray[np.int64]] = field(default_factory=dict, repr=False)
    _counts: dict[str | None, npt.NDArray[np.float64]] = field(default_factory=dict, repr=False)

    @classmethod
    def from_items(cls, items: Sequence[dict[str, Any]], spec: SidSpec) -> "Catalogue":
        """From items with `item_id`, `sid` and any attributes; sorts them.

        Raises `BundleError` for items that lack an id or a SID, and for columns whose values have
        no common type; `SidError` for SIDs that do not follow `spec`.
        """
        check_items(items)
        codes = spec.parse([item["sid"] for item in items])
        names = dict.fromkeys(name for item in items for name in item if name != "sid")
        columns = {name: _column(name, [item.get(name) for item in items]) for name in names}
        columns.setdefault("title", pa.nulls(len(items), pa.string()))
        columns.setdefault("popularity", pa.array(np.zeros(len(items))))
        given = cls(pa.table(columns), codes)
        if problems := given._popularity_problems():
            raise BundleError(problems)
        ranked = np.lexsort((np.array(given.item_ids), -given.popularity))
        order = ranked[sort_order(codes[ranked])]
        return cls(given.table.take(order), codes[order])

    @classmethod
    def read(cls, path: Path) -> "Catalogue":
        """Reads a Parquet file that `write` made. Raises `BundleError` for anything else."""
        try:
            table = pq.read_table(path)
            listed = table.column("codes").combine_chunks()
            flat = listed.flatten()
            if flat.type != pa.int32() or flat.null_count:
                raise ValueError(f"codes are {flat.type}, {flat.null_count} of them null")
            codes = flat.to_numpy().reshape(len(table), listed.type.list_size)
        except (pa.ArrowException, OSError, KeyError, AttributeError, ValueError) as error:
            raise BundleError([f"{path.name}: not a catalogue: {error}"]) from error
        missing = {"item_id", "title", "popularity"} - set(table.column_names)
        if missing:
            raise BundleError([f"{path.name}: no column {name}" for name in sorted(missing)])
        return cls(table.drop_columns(["codes"]), codes)

    def write(self, path: Path) -> None:
        """Writes a Parquet file. Raises `BundleError` for attributes that Parquet cannot hold."""
        flat = pa.array(self.codes.astype(np.int32).ravel())
        codes = pa.FixedSizeListArray.from_arrays(flat, self.codes.shape[1])
        try:
            pq.write_table(self.table.append_column("codes", codes), path, compression="zstd")
        except pa.ArrowException as error:
            raise BundleError([f"catalogue: {error}"]) from error

    def __len__(self) -> int:
        return len(self.codes)

    @cached_property
    def item_ids(self) -> Sequence[str]:
        return [str(item_id) for item_id in self.table.column("item_id").to_pylist()]

    @cached_property
    def titles(self) -> Sequence[str | None]:
        return [
            None if title is None else str(title)
            for title in self.table.column("title").to_pylist()
        ]

    @cached_property
    def row_of(self) -> Mapping[str, int]:
        """Row of each item id."""
        return {item_id: row for row, item_id in enumerate(self.item_ids)}

    @property
    def popularity(self) -> npt.NDArray[np.float64]:
        return self.popularity_in(None)

    def popularity_in(self, scene: str | None) -> npt.NDArray[np.float64]:
        """How popular each row is in one of the `scenes`, or overall."""
        if scene not in self._counts:
            self._counts.update(counts_of(self.table, [scene]))
        return self._counts[scene]

    @property
    def scenes(self) -> list[str]:
        """The scenes for which popularity is known."""
        if SCENES not in self.table.column_names:
            return []
        kind = self.table.schema.field(SCENES).type
        return [str(field.name) for field in kind] if pa.types.is_struct(kind) else []

    def popular(self, scene: str | None = None) -> npt.NDArray[np.int64]:
        """All rows, most popular first; in a scene where the catalogue counts by scene."""
        known = scene if scene in self.scenes else None
        if known not in self._popular:
            count = self.popularity_in(known)
            self._popular[known] = np.lexsort((np.arange(len(self)), -self.popularity, -count))
        return self._popular[known]

    def attributes(self, row: int) -> dict[str, Any]:
        """Everything known of one item, its codes aside."""
        values: dict[str, Any] = self.table.slice(row, 1).to_pylist()[0]
        return values

    def problems(self, spec: SidSpec) -> list[str]:
        """What is wrong with these items, one line each."""
        if len(self) == 0:
            return ["catalogue: there are no items"]
        found = self._popularity_problems()
        if self.codes.shape[1] != spec.depth:
            return [
                *found,
                f"catalogue: codes have {self.codes.shape[1]} levels, the spec {spec.depth}",
            ]
        for i, level in enumerate(spec.levels):
            lowest = END if spec.extra and i == spec.depth - 1 else 0
            column = self.codes[:, i]
            found += [
                f"catalogue: item {self.item_ids[row]!r} has code {column[row]} at level"
                f" {i + 1}, outside 0..{level.size - 1}"
                for row in np.flatnonzero((column < lowest) | (column >= level.size))[:3]
            ]
        counts = pc.value_counts(self.table.column("item_id"))
        repeated = counts.filter(pc.greater(counts.field("counts"), 1))
        found += [
            f"catalogue: {entry['counts']} items have the id {entry['values']!r}"
            for entry in repeated[:3].to_pylist()
        ]
        if not found and (sort_order(self.codes) != np.arange(len(self))).any():
            found.append("catalogue: items are not in the order of their SIDs")
        return found

    def _popularity_problems(self) -> list[str]:
        """Popularity is a number, by scene a struct of numbers."""
        columns = {"popularity": self.table.schema.field("popularity").type}
        if SCENES in self.table.column_names:
            by_scene = self.table.schema.field(SCENES).type
            if pa.types.is_struct(by_scene):
                columns |= {f"{SCENES}.{field.name}": field.type for field in by_scene}
            else:
                columns[SCENES] = by_scene
        return [
            f"catalogue: {name} is {kind}, not a number"
            for name, kind in columns.items()
            if name == SCENES or not (pa.types.is_integer(kind) or pa.types.is_floating(kind))
        ]


def counts_of(
    table: pa.Table, scenes: Iterable[str | None]
) -> dict[str | None, npt.NDArray[np.float64]]:
    """How popular the items of a catalogue's table are in scenes; None is overall."""
    return {
        scene: _floats(
            table.column("popularity")
            if scene is None
            else pc.struct_field(table.column(SCENES), scene)
        )
        for scene in scenes
    }


def check_items(items: Sequence[dict[str, Any]]) -> None:
    """Raises `BundleError` unless there are items and each has an id and a SID."""
    problems = [
        f"item {i + 1}: {name} must be a non-empty string, not {item.get(name)!r}"
        for name in ("item_id", "sid")
        for i, item in enumerate(items)
        if not isinstance(item.get(name), str) or not item[name]
    ]
    if problems or not items:
        raise BundleError(problems[:20] or ["there are no items"])


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Objects from JSON lines, gzipped or not. Raises `BundleError` naming the lines at fault."""
    problems = []
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            if _SURROGATE.search(line):
                # Half a pair is no text, and could not be written again.
                json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            value, reason = None, str(error)
        else:
            reason = "not a JSON object"
        if isinstance(value, dict):
            yield value
        else:
            problems.append(f"{path.name}, line {number}: {reason}")
    if problems:
        raise BundleError(problems[:20])


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            yield from lines
    except (OSError, EOFError, zlib.error) as error:
        raise BundleError([f"{path.name}: {error}"]) from error


def _column(name: str, values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError) as error:
        raise BundleError([f"attribute {name!r}: {error}"]) from error


def _floats(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    filled = pc.fill_null(pc.cast(column, pa.float64()), 0.0)
    return np.asarray(filled.to_numpy(), np.float64)
