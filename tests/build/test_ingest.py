"""From files in any of their forms to items, sequences and cases; what is dropped is counted."""

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from model_store.build.config import BuildConfig, load_config
from model_store.build.dropped import Dropped
from model_store.build.evaluate import Split
from model_store.build.files import Row, read_rows
from model_store.build.ingest import ingest, read_items, read_split
from model_store.build.log import Log
from model_store.errors import BuildError

ITEMS: list[Row] = [
    {"item_id": f"{i:03}", "title": f"Title {i}", "price": i / 2, "sid": f"<a_{i % 4}><b_{i // 4}>"}
    for i in range(12)
]
EVENTS: list[Row] = [
    {"user_id": f"u{u}", "item_id": f"{(u + i) % 12:03}", "timestamp": 100 * i + u}
    for u in range(8)
    for i in range(3 + u % 4)
]


def write_json(rows: Sequence[Row], path: Path) -> Path:
    path = path.with_suffix(".jsonl")
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def write_json_gz(rows: Sequence[Row], path: Path) -> Path:
    plain = write_json(rows, path)
    packed = path.with_suffix(".jsonl.gz")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    return packed


def write_csv(rows: Sequence[Row], path: Path) -> Path:
    path = path.with_suffix(".csv")
    pyarrow.csv.write_csv(pa.Table.from_pylist(list(rows)), path)
    return path


def write_csv_gz(rows: Sequence[Row], path: Path) -> Path:
    packed = path.with_suffix(".csv.gz")
    packed.write_bytes(gzip.compress(write_csv(rows, path).read_bytes()))
    return packed


def write_parquet(rows: Sequence[Row], path: Path) -> Path:
    path = path.with_suffix(".parquet")
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


Writer = Callable[[Sequence[Row], Path], Path]


def config(data: Mapping[str, Any], **more: Any) -> BuildConfig:
    return BuildConfig.model_validate(
        {
            "name": "shop",
            "data": {"source": "files", **data},
            "prompt": {"text": "{history}"},
            **more,
        }
    )


def run(config: BuildConfig, folder: Path) -> tuple[list[Row], Split, Dropped]:
    out = folder / "out"
    out.mkdir()
    dropped = ingest(config, out)
    items = read_items(out)
    return items, read_split(out, items), dropped


def ids(items: Sequence[Row], rows: Sequence[int]) -> list[str]:
    return [items[row]["item_id"] for row in rows]


@pytest.mark.parametrize(
    "write", [write_json, write_json_gz, write_csv, write_csv_gz, write_parquet]
)
def test_every_format_says_the_same(write: Writer, tmp_path: Path) -> None:
    data = {
        "items": write(ITEMS, tmp_path / "items"),
        "events": write(EVENTS, tmp_path / "events"),
    }
    items, found, dropped = run(config(data), tmp_path)
    assert dropped.counts == {}
    assert [{k: v for k, v in item.items() if k != "popularity"} for item in items] == ITEMS
    # u0 did 0, 1, 2: the last is the test, the one before it validation.
    first = found.learn[0]
    assert (first.user_id, ids(items, first.items)) == ("u0", ["000"])
    assert ids(items, [found.valid[0].target, found.test[0].target]) == ["001", "002"]
    assert ids(items, found.test[0].user.items) == ["000", "001"]
    assert len(found.learn) == len(found.valid) == len(found.test) == 8
    assert sum(item["popularity"] for item in items) == len(EVENTS) - 16


def test_events_are_put_in_order_of_time_and_columns_renamed(tmp_path: Path) -> None:
    shuffled = [EVENTS[i] for i in np.random.default_rng(0).permutation(len(EVENTS))]
    dates = [
        {"uid": e["user_id"], "asin": e["item_id"], "when": f"2026-01-0{1 + day}T0{hour}:00:00Z"}
        for e in shuffled
        for day, hour in [divmod(e["timestamp"], 100)]
    ]
    plain = {
        "items": write_json(ITEMS, tmp_path / "items"),
        "events": write_json(EVENTS, tmp_path / "events"),
    }
    (tmp_path / "one").mkdir()
    _, expected, _ = run(config(plain), tmp_path / "one")
    renamed = {
        "items": plain["items"],
        "events": write_csv(dates, tmp_path / "dates"),
        "columns": {"user_id": "uid", "item_id": "asin", "timestamp": "when"},
    }
    (tmp_path / "two").mkdir()
    _, found, _ = run(config(renamed), tmp_path / "two")
    assert {u.user_id: u.items for u in found.learn} == {u.user_id: u.items for u in expected.learn}


def test_what_is_unusable_is_dropped_and_counted(tmp_path: Path) -> None:
    items = [
        *ITEMS,
        {"title": "no id", "sid": "<a_0><b_0>"},
        {"item_id": "003", "title": "again", "sid": "<a_1><b_1>"},
        {"item_id": "bare"},
    ]
    events = [
        *EVENTS,
        {"user_id": "u1", "item_id": "nowhere", "timestamp": 5},
        {"user_id": "u1", "item_id": "001", "timestamp": "sometime"},
        {"user_id": None, "item_id": "001", "timestamp": 5},
        {"user_id": "u1", "item_id": "", "timestamp": 5},
        EVENTS[0],
        {"user_id": "once", "item_id": "001", "timestamp": 5},
    ]
    as_text = [{**event, "timestamp": str(event["timestamp"])} for event in events]
    data = {
        "items": write_json(items, tmp_path / "items"),
        "events": write_json(as_text, tmp_path / "events"),
    }
    kept, found, dropped = run(config(data), tmp_path)
    assert dropped.counts == {
        "items without an id": 1,
        "items with an id that came before": 1,
        "items without a SID": 1,
        "events without a user_id": 1,
        "events without a item_id": 1,
        "events with unknown items": 1,
        "events without a usable timestamp": 1,
        "events that came before": 1,
        "users with fewer than 3 events": 1,
    }
    assert dropped.examples["users with fewer than 3 events"] == "once"
    assert len(kept) == 12
    assert len(found.test) == 8


def test_sequences_with_times_are_put_in_order(tmp_path: Path) -> None:
    sequence = ["003", "gone", "001", "002", "004"]
    times = ["2026-01-03", "2026-01-01", "2026-01-01", "2026-01-02", "someday"]
    data = {
        "items": write_json(ITEMS, tmp_path / "items"),
        "sequences": write_json(
            [{"user_id": "u", "sequence": sequence, "timestamps": times}], tmp_path / "s"
        ),
    }
    items, found, dropped = run(config(data), tmp_path)
    assert ids(items, found.test[0].user.items) == ["001", "002"]
    assert ids(items, [found.test[0].target]) == ["003"]
    assert dropped.counts == {
        "events with unknown items": 1,
        "events without a usable timestamp": 1,
    }


def test_items_without_text_have_no_sid_to_get(tmp_path: Path) -> None:
    items = [{k: v for k, v in item.items() if k != "sid"} for item in ITEMS]
    items[5] = {"item_id": "005", "title": " "}
    data = {
        "items": write_json(items, tmp_path / "items"),
        "events": write_json(EVENTS, tmp_path / "events"),
    }
    _, _, dropped = run(config(data, sids={"text": ("title", "brand")}), tmp_path)
    assert dropped.counts["items without text (title, brand)"] == 1
    assert dropped.examples["items without text (title, brand)"] == "005"


def test_event_types_scenes_and_profiles(tmp_path: Path) -> None:
    events = [
        {**event, "type": "buy" if i % 3 else "view", "scene": f"s{i % 2}"}
        for i, event in enumerate(EVENTS)
    ]
    users = [{"user_id": f"u{u}", "age": 20 + u} for u in range(8)]
    data = {
        "items": write_json(ITEMS, tmp_path / "items"),
        "events": write_parquet(events, tmp_path / "events"),
        "users": write_csv(users, tmp_path / "users"),
        "types": ["buy"],
    }
    _, found, dropped = run(config(data, split={"kind": "users", "share": 0.4}), tmp_path)
    assert dropped.counts["events of other types"] == sum(e["type"] == "view" for e in events)
    for user in found.learn:
        assert user.profile == {"age": str(20 + int(user.user_id[1:]))}
        bought = [e["scene"] for e in events if e["user_id"] == user.user_id and e["type"] == "buy"]
        assert list(user.scenes) == bought
    for case in found.test:
        bought = [e for e in events if e["user_id"] == case.user.user_id and e["type"] == "buy"]
        assert case.user.scene == bought[-1]["scene"]


def test_a_chronological_split_has_one_boundary_for_all(tmp_path: Path) -> None:
    data = {
        "items": write_json(ITEMS, tmp_path / "items"),
        "events": write_json(EVENTS, tmp_path / "events"),
    }
    split = {"kind": "chronological", "share": 0.25, "valid_share": 0.25}
    items, found, _ = run(config(data, split=split), tmp_path)
    times = sorted(event["timestamp"] for event in EVENTS)
    valid_from, test_from = times[len(times) // 2], times[len(times) * 3 // 4]
    at = {(e["user_id"], e["item_id"]): e["timestamp"] for e in EVENTS}

    def when(user: str, row: int) -> int:
        return int(at[user, items[row]["item_id"]])

    assert all(when(u.user_id, row) < valid_from for u in found.learn for row in u.items)
    for cases, low, high in ((found.valid, valid_from, test_from), (found.test, test_from, 10**9)):
        for case in cases:
            asked = when(case.user.user_id, case.target)
            assert low <= asked < high
            assert all(when(case.user.user_id, row) < asked for row in case.user.items)
    learnt = sum(len(user.items) for user in found.learn)
    assert learnt + len(found.valid) + len(found.test) == len(EVENTS)


def test_a_chronological_split_needs_times(tmp_path: Path) -> None:
    data = {
        "items": write_json(ITEMS, tmp_path / "items"),
        "sequences": write_json([{"user_id": "u", "sequence": ["001", "002"]}], tmp_path / "s"),
    }
    with pytest.raises(BuildError, match="needs timestamps"):
        run(config(data, split={"kind": "chronological"}), tmp_path)


@pytest.mark.parametrize("write", [write_json, write_parquet, write_csv])
def test_a_split_that_is_given(write: Writer, tmp_path: Path) -> None:
    """As in the Office data set: cases with a history and a target."""

    def listed(values: list[str]) -> Any:
        return " ".join(values) if write is write_csv else values

    train = [{"user_id": "u", "sequence": listed(["001", "002", "gone", "002"])}]
    cases = [
        {"user_id": "u", "history": listed(["001", "gone", "002"]), "target": "003"},
        {"user_id": "u", "history": listed(["gone"]), "target": "003"},
        {"user_id": "u", "history": listed(["001"]), "target": "gone"},
    ]
    data = {
        "items": write(ITEMS, tmp_path / "items"),
        "train": write(train, tmp_path / "train"),
        "valid": write(cases[:1], tmp_path / "valid"),
        "test": write(cases, tmp_path / "test"),
    }
    items, found, dropped = run(config(data, split={"kind": "files"}), tmp_path)
    assert [ids(items, user.items) for user in found.learn] == [["001", "002", "002"]]
    for part in (found.valid, found.test):
        [case] = part
        assert (ids(items, case.user.items), ids(items, [case.target])) == (["001", "002"], ["003"])
    assert dropped.counts == {
        "events with unknown items": 4,
        "cases without a history": 1,
        "cases without a known target": 1,
    }


def test_the_core_leaves_no_user_and_no_item_below_it() -> None:
    rng = np.random.default_rng(1)
    user, item = rng.integers(60, size=400), rng.zipf(1.6, size=400) % 50
    log = Log.of([str(u) for u in range(60)], user, item)
    core = log.core(6)
    assert 0 < len(core) < 400
    assert np.bincount(core.user)[np.unique(core.user)].min() >= 6
    assert np.bincount(core.item)[np.unique(core.item)].min() >= 6
    # It is the largest such part: peeling one event after the other ends in the same.
    pairs = list(zip(log.user.tolist(), log.item.tolist(), strict=True))
    while True:
        users, items = ([pair[i] for pair in pairs] for i in (0, 1))
        weak = [p for p in pairs if users.count(p[0]) < 6 or items.count(p[1]) < 6]
        if not weak:
            break
        pairs.remove(weak[0])
    assert sorted(pairs) == sorted(zip(core.user.tolist(), core.item.tolist(), strict=True))


def test_core_and_unclicked_items(tmp_path: Path) -> None:
    events = [
        {"user_id": f"u{user}", "item_id": f"{item:03}", "timestamp": item}
        for user in range(4)
        for item in range(4)
    ]
    events += [{"user_id": "u0", "item_id": "011", "timestamp": 9}]
    data = {
        "items": write_json(ITEMS, tmp_path / "items"),
        "events": write_json(events, tmp_path / "events"),
        "core": 4,
        "drop_unclicked": True,
    }
    items, found, dropped = run(config(data), tmp_path)
    assert [item["item_id"] for item in items] == ["000", "001", "002", "003"]
    assert dropped.counts == {"events outside the 4-core": 1, "items that nobody clicked": 8}
    assert len(found.test) == 4


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("items.jsonl", b'{"item_id": "1"}\n{oops\n', r"items\.jsonl, line 2"),
        ("items.jsonl.gz", b"not gzipped", r"items\.jsonl\.gz"),
        ("items.parquet", b"PAR1 and no more", r"items\.parquet"),
        ("items.csv", b"a,b\n1,2,3\n", r"items\.csv"),
        ("items.xlsx", b"", "neither"),
    ],
)
def test_a_corrupt_file_is_named(name: str, content: bytes, complaint: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BuildError, match=complaint):
        read_rows(tmp_path / name)


def test_ids_stay_text(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,price\n007,1.5\n")
    assert read_rows(tmp_path / "items.csv") == [{"item_id": "007", "price": 1.5}]
    write_json([{"item_id": 7}], tmp_path / "items")
    assert read_rows(tmp_path / "items.jsonl") == [{"item_id": "7"}]


def test_nothing_left_says_why(tmp_path: Path) -> None:
    data = {
        "items": write_json(ITEMS, tmp_path / "items"),
        "sequences": write_json([{"user_id": "u", "sequence": ["gone"]}], tmp_path / "s"),
    }
    with pytest.raises(BuildError, match="unknown items: 1"):
        run(config(data), tmp_path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('events = "e.csv"\nsequences = "s.jsonl"', "needs one of"),
        ("", "needs one of"),
        ('train = "t.jsonl"', "belong together"),
        ('train = "t.jsonl"\ntest = "t.jsonl"', "split.kind"),
    ],
)
def test_mistakes_in_the_data_section(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(
        'name = "x"\n[prompt]\ntext = "{history}"\n'
        f'[data]\nsource = "files"\nitems = "i"\n{text}\n'
    )
    with pytest.raises(BuildError, match=complaint):
        load_config(path)
