"""Input that makes no sense, through the command line: one line names it, never a traceback."""

import gzip
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from service.cli import cli

Row = dict[str, Any]

ITEMS: list[Row] = [
    {"item_id": f"{i:03}", "title": f"Title {i}", "sid": f"<a_{i % 4}><b_{i // 4}>"}
    for i in range(12)
]
SEQUENCES: list[Row] = [
    {"user_id": f"u{u}", "sequence": [f"{(u + i) % 12:03}" for i in range(4)]} for u in range(8)
]
EVENTS: list[Row] = [
    {"user_id": f"u{u}", "item_id": f"{(u + i) % 12:03}", "timestamp": 100 * i + u}
    for u in range(8)
    for i in range(4)
]


def lines(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows: Sequence[Row]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), buffer)
    return buffer.getvalue()


def third(rows: Sequence[Row], **changes: Any) -> list[Row]:
    """The rows with another third one."""
    return [{**row, **changes} if i == 2 else row for i, row in enumerate(rows)]


def run(folder: Path, what: str, name: str, content: bytes) -> Result:
    """`sidrec build` as far as the dataset, with one of three files replaced."""
    files = {"items": "items.jsonl", "sequences": "sequences.jsonl"}
    (folder / "items.jsonl").write_bytes(lines(ITEMS))
    (folder / "sequences.jsonl").write_bytes(lines(SEQUENCES))
    (folder / name).write_bytes(content)
    files[what] = name
    if what == "events":
        del files["sequences"]
    data = "".join(f'{key} = "{folder / path}"\n' for key, path in files.items())
    config = folder / "build.toml"
    prompt = '[prompt]\ntext = "{history}"\n[prompt.tasks]\n'
    prompt += 'sid_to_title = "{sid}"\ntitle_to_sid = "{title}"\n[train.mix]\ntitle_to_sid = 1\n'
    config.write_text(f'name = "x"\n[data]\nsource = "files"\n{data}{prompt}')
    work = ["--out", str(folder / "store"), "--work", str(folder / "work")]
    stages = [option for name in ("ingest", "sids", "dataset") for option in ("--stage", name)]
    return CliRunner().invoke(cli, ["build", str(config), *work, *stages])


RUBBISH: list[tuple[str, str, bytes, str]] = [
    ("items", "i.jsonl.gz", gzip.compress(lines(ITEMS))[:-20], r"i\.jsonl\.gz: .*ended before"),
    ("items", "i.jsonl", lines(ITEMS) + b"{oops\n", r"i\.jsonl, line 13: Expecting"),
    ("items", "i.jsonl", lines(ITEMS) + b'{"title": "\xe9"}\n', r"i\.jsonl, line 13: 'utf-8'"),
    ("items", "i.jsonl", lines(ITEMS) + b'{"item_id": "\\ud800"}\n', r"line 13: .*surrogates"),
    ("items", "i.jsonl", json.dumps(ITEMS).encode(), r"i\.jsonl, line 1: not a JSON object"),
    ("items", "i.jsonl", b"[" * 100_000, r"i\.jsonl, line 1: maximum recursion"),
    ("items", "i.jsonl", b"", "there is no usable item: the file is empty"),
    ("items", "i.jsonl", lines(third(ITEMS, sid="hello")), "SIDs differ .* 'hello'"),
    ("items", "i.jsonl", lines(third(ITEMS, title=["a"])), "attribute 'title'"),
    ("items", "i.jsonl", lines(third(ITEMS, popularity_by_scene=5)), "popularity_by_scene"),
    ("items", "i.parquet", lines(ITEMS), r"i\.parquet: .*not a parquet file"),
    ("items", "i.parquet", parquet(ITEMS)[:-30], r"i\.parquet: .*corrupted"),
    ("items", "i.parquet", parquet([{"item_id": [1]}]), r"i\.parquet: item_id: Unsupported cast"),
    ("items", "i.csv", b"item_id,title\n1,2,3\n", r"i\.csv: CSV parse error"),
    ("items", "i.csv", b"item_id,sid,sid\n1,2,3\n", r"i\.csv: two columns have one name"),
    ("sequences", "s.jsonl", lines(third(SEQUENCES, sequence=5)), "record 3: sequence is not"),
    ("sequences", "s.jsonl", lines(third(SEQUENCES, scenes={"a": 1})), "record 3: scenes is not"),
    ("sequences", "s.jsonl", lines(third(SEQUENCES, profile="male")), "record 3: profile has no"),
    ("sequences", "s.jsonl", lines(third(SEQUENCES, timestamps=[1])), "user 'u2': .*lengths"),
    ("sequences", "s.parquet", parquet([{"user_id": "u", "sequence": 5}]), "record 1: sequence"),
    ("sequences", "s.jsonl", b"", "nothing is left to learn from"),
    ("events", "e.csv.gz", gzip.compress(b"user_id,item_id\n" * 99)[:-12], r"e\.csv\.gz: Trunc"),
    ("events", "e.csv.gz", b"user_id,item_id\n", r"e\.csv\.gz: .*incorrect header"),
    ("events", "e.csv", b"user_id,timestamp\nu,1\n", r"e\.csv: no column item_id"),
    ("events", "e.jsonl", lines(third(EVENTS, timestamp=10**30)), r"e\.jsonl: .*too large"),
    ("events", "e.jsonl", lines(third(EVENTS, timestamp="may")), r"e\.jsonl: .*'may'"),
    ("events", "e.parquet", parquet([{**e, "timestamp": [1]} for e in EVENTS]), "timestamp: Unsup"),
]


@pytest.mark.parametrize(
    ("what", "name", "content", "complaint"), RUBBISH, ids=[complaint for *_, complaint in RUBBISH]
)
def test_one_line_names_it(
    tmp_path: Path, what: str, name: str, content: bytes, complaint: str
) -> None:
    result = run(tmp_path, what, name, content)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)  # and not something that nobody expected
    [line] = result.stderr.splitlines()
    assert re.search(complaint, line)
    assert not (tmp_path / "store").exists()


def test_what_can_be_left_out_is_counted_and_shown(tmp_path: Path) -> None:
    items = [*ITEMS, ITEMS[4], {"title": "nameless", "sid": "<a_0><b_0>"}, {"item_id": "bare"}]
    result = run(tmp_path, "items", "i.jsonl", lines(items))
    assert result.exit_code == 0
    for line in (
        r"items with an id that came before .* 1 .* 004",
        r"items without an id .* 1 .* item 14",
        r"items without a SID .* 1 .* bare",
    ):
        assert re.search(line, result.output)
    short = [*EVENTS, {"user_id": "once", "item_id": "001", "timestamp": 5}]
    result = run(tmp_path, "events", "e.jsonl", lines(short))
    assert re.search(r"users with fewer than 3 events .* 1 .* once", result.output)


def test_values_of_other_types_become_text(tmp_path: Path) -> None:
    """An age, a scene's number, a title of digits: the prompt has them as text."""
    odd = third(SEQUENCES, profile={"age": 30, "city": None}, scenes=[1, 2, None, 4])
    assert run(tmp_path, "sequences", "s.jsonl", lines(odd)).exit_code == 0
    titled = [{**item, "title": 1984} for item in ITEMS]
    assert run(tmp_path, "items", "i.jsonl", lines(titled)).exit_code == 0
