"""What users click and filter by: the items of a catalogue, as the service lists them, or a file.

Conditions are made from the attributes: the frequent values of texts and truth values, and ranges
between the quartiles of numbers.
"""

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bench.connection import Connection, NotServing, said

_PAGE = 200
_MOST_VALUES = 20
_RAREST = 0.005
_NOT_FILTERED = {"item_id", "title", "sid", "popularity", "and", "or", "not"}


@dataclass(frozen=True, slots=True)
class Wares:
    """Ids, the most popular first as far as that is known, and per attribute some conditions."""

    items: list[str]
    filters: dict[str, list[Any]]

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> "Wares":
        """From objects with `item_id`, attributes, and perhaps `popularity`."""
        known = sorted(rows, key=lambda row: -(row.get("popularity") or 0))
        names = {name for row in known for name in row} - _NOT_FILTERED
        found = {name: _conditions([row.get(name) for row in known]) for name in sorted(names)}
        return cls(
            [row["item_id"] for row in known], {n: made for n, made in found.items() if made}
        )


def from_file(path: Path) -> Wares:
    """From JSON lines such as a bundle is made of. Raises `ValueError` for anything else."""
    rows = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                rows.append(json.loads(line))
                rows[-1]["item_id"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}:{number} is no item: {error}") from error
    if not rows:
        raise ValueError(f"{path} has no items")
    return Wares.of(rows)


def from_service(url: str, key: str | None, most: int) -> Wares:
    """From `GET /v1/items`, the first `most`. Raises `NotServing` where they cannot be had."""
    rows: list[dict[str, Any]] = []
    for item in _listed(url, key):
        rows.append({"item_id": item["item_id"], **item["attributes"]})
        if len(rows) == most:
            break
    if not rows:
        raise NotServing(f"{url} lists no items")
    return Wares.of(rows)


def _listed(url: str, key: str | None) -> Iterator[dict[str, Any]]:
    after = ""
    with Connection(url, key) as connection:
        while True:
            status, body = connection.ask("GET", f"/v1/items?limit={_PAGE}{after}")
            if status != 200:
                raise NotServing(
                    f"GET /v1/items was answered with {status}: {said(body)}. --items names a file"
                )
            page = json.loads(body)
            yield from page["items"]
            if page["next"] is None:
                return
            after = f"&after={quote(page['next'], safe='')}"


def _conditions(values: list[Any]) -> list[Any]:
    """What may be asked of an attribute with these values, None where an item has none."""
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, int | float) and value is not True for value in known):
        low, middle, high = statistics.quantiles(known, n=4) if len(known) > 1 else known * 3
        return [{"lt": middle}, {"gte": middle}, {"gte": low, "lt": high}] if low < high else []
    if not all(isinstance(value, str | bool) for value in known):
        return []
    counted = Counter(known).most_common(_MOST_VALUES)
    frequent = [value for value, count in counted if count >= _RAREST * len(values)]
    return frequent if len(counted) > 1 else []
