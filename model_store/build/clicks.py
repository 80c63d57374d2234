"""Clicks as they come, one event a row or one user a row, to a log; what is unusable is counted."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model_store.build.config import FileData
from model_store.build.dropped import Dropped
from model_store.build.files import Row, cast, read_table
from model_store.build.log import Log
from model_store.errors import BuildError


def read_events(data: FileData, row_of: Mapping[str, int], dropped: Dropped) -> Log:
    """One event a row of `data.events`. Raises `BuildError`."""
    assert data.events
    table = read_table(data.events, data.columns)
    for name in ("user_id", "item_id", "timestamp"):
        if name not in table.column_names:
            raise BuildError(f"{data.events}: no column {name}, only {table.column_names}")

    def keep(mask: Any, reason: str) -> None:
        nonlocal table
        out = pc.invert(pc.fill_null(mask, False))
        count = pc.sum(out).as_py() or 0
        if count:
            example = table.filter(out).slice(0, 1).to_pylist()[0]
            dropped.add(reason, ", ".join(f"{k}={v}" for k, v in example.items()), count)
            table = table.filter(pc.invert(out))

    if data.types:
        if "type" not in table.column_names:
            raise BuildError(f"{data.events}: no column type to choose {list(data.types)} from")
        keep(pc.is_in(table["type"], pa.array(data.types)), "events of other types")
    for name in ("user_id", "item_id"):
        filled = pc.fill_null(pc.not_equal(table[name], ""), False)
        keep(filled, f"events without a {name}")
    keep(pc.is_in(table["item_id"], pa.array(list(row_of))), "events with unknown items")
    table = table.append_column("time", pa.array(_times(table, data.events)))
    keep(pc.is_finite(table["time"]), "events without a usable timestamp")
    what = ["user_id", "item_id", "time"]
    numbered = table.append_column("place", pa.array(np.arange(len(table))))
    first = numbered.group_by(what).aggregate([("place", "min")])["place_min"]
    keep(pc.is_in(numbered["place"], first), "events that came before")
    users = pc.dictionary_encode(table["user_id"].combine_chunks())
    scenes = _texts(table["scene"].to_pylist()) if "scene" in table.column_names else None
    return Log.of(
        users.dictionary.to_pylist(),
        users.indices.to_numpy().astype(np.int64),
        np.array([row_of[i] for i in table["item_id"].to_pylist()], np.int64),
        table["time"].to_numpy(),
        None if scenes is None else np.array(scenes, object),
    )


def _texts(values: Iterable[Any]) -> list[str | None]:
    return [None if value is None else str(value) for value in values]


def _times(table: pa.Table, path: Path) -> np.ndarray:
    """Numbers as they are, dates in seconds; NaN for what is neither."""
    column = table["timestamp"]
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return np.asarray(column.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy() / 1e6)
    if not pa.types.is_string(column.type):
        return np.array(cast(column, pa.float64(), path, "timestamp").to_numpy())
    return np.array([_seconds(text) for text in column.to_pylist()])


def _seconds(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text or "").timestamp()
    except ValueError:
        return float("nan")


def from_sequences(
    rows: Sequence[Row], row_of: Mapping[str, int], types: Sequence[str], dropped: Dropped
) -> Log:
    """One event after the other, from one record a user. Raises `BuildError`."""
    users: list[str] = []
    profiles: dict[str, Mapping[str, str]] = {}
    events: list[tuple[int, int, float, str | None]] = []
    timed = all("timestamps" in row for row in rows) and bool(rows)
    with_scenes = any("scenes" in row for row in rows)
    for number, row in enumerate(rows, 1):
        user_id = str(row.get("user_id") or "")
        if not user_id:
            dropped.add("users without an id", f"user {number}")
        elif user_id in profiles:
            dropped.add("users with an id that came before", user_id)
        else:
            users.append(user_id)
            profiles[user_id] = row.get("profile", {})
            for item, at, kind, scene in _steps(user_id, row):
                if types and kind not in types:
                    dropped.add("events of other types", f"{user_id}, {kind}")
                elif item not in row_of:
                    dropped.add("events with unknown items", f"{user_id}, {item}")
                elif timed and not math.isfinite(at):
                    dropped.add("events without a usable timestamp", f"{user_id}, {item}")
                else:
                    events.append((len(users) - 1, row_of[item], at, scene))
    user, item_row, time, scene_of = zip(*events, strict=True) if events else ((), (), (), ())
    return Log.of(
        users,
        np.array(user, np.int64),
        np.array(item_row, np.int64),
        np.array(time, np.float64) if timed else None,
        np.array(scene_of, object) if with_scenes else None,
        profiles,
    )


def _steps(user_id: str, row: Row) -> Iterator[tuple[str, float, str | None, str | None]]:
    items = [str(item) for item in row.get("sequence", ())]
    nothing = [None] * len(items)
    beside = [row.get(name, nothing) for name in ("timestamps", "types", "scenes")]
    if any(len(values) != len(items) for values in beside):
        raise BuildError(f"user {user_id!r}: lists of different lengths beside the sequence")
    times = [float("nan") if at is None else _seconds(str(at)) for at in beside[0]]
    return zip(items, times, _texts(beside[1]), _texts(beside[2]), strict=True)
