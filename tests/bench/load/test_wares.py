"""Items and conditions from a file; tests/bench/load/test_command.py has them from a service."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.load.wares import Wares, from_file
from tests.tiny import random_items, write_items


def item(number: int, **attributes: Any) -> dict[str, Any]:
    return {"item_id": f"i{number}", "sid": f"<a_{number}>", **attributes}


def test_the_most_popular_come_first() -> None:
    rows = [item(1, popularity=3), item(2, popularity=9), item(3), item(4, popularity=5)]
    assert Wares.of(rows).items == ["i2", "i4", "i1", "i3"]


def test_conditions_are_made_of_what_items_have() -> None:
    rows = [
        item(n, title=f"t{n}", brand="ab"[n % 2], price=n, new=n % 3 == 0, one="x", tags=["t"])
        for n in range(8)
    ]
    filters = Wares.of([*rows, item(9)]).filters
    assert set(filters) == {"brand", "price", "new"}
    assert sorted(filters["brand"]) == ["a", "b"]
    assert filters["new"] == [False, True]
    assert {"lt": 3.5} in filters["price"]


def test_from_a_file(tmp_path: Path) -> None:
    items = random_items(50, (5, 5))
    wares = from_file(write_items(items, tmp_path / "items.jsonl"))
    assert set(wares.items) == {one["item_id"] for one in items}
    assert {"brand", "price"} == set(wares.filters)


@pytest.mark.parametrize("line", ["{", "[]", '{"title": "x"}', '"x"'])
def test_the_line_that_is_no_item_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps(item(1)) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=r"items.jsonl:2 is no item"):
        from_file(path)


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text("")
    with pytest.raises(ValueError, match="no items"):
        from_file(path)
