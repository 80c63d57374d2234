"""Items and clicks as they come, to what the other stages read. What is unusable is dropped,
counted and shown; what makes no sense at all stops the build.

Reads items, and one of
    sequences            user_id, sequence (item ids in time order), optional profile, and lists
                         beside the sequence: timestamps, types, scenes
    events               user_id, item_id, timestamp, optional type and scene; one event a row
    train, valid, test   a split that is given: sequences as above; and cases, each with
                         user_id, history, target, optional profile and scene

Writes items.jsonl (with popularity, counted over what is learnt from), learn.jsonl, valid.jsonl,
test.jsonl, dropped.json.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from model_store.build.clicks import from_sequences, read_events
from model_store.build.config import BuildConfig, FileData
from model_store.build.dataset import UserSequence
from model_store.build.dropped import Dropped
from model_store.build.evaluate import Case, Split, popularity
from model_store.build.files import Row, read_clicks, read_rows, texts_of, write_rows
from model_store.build.log import Log
from model_store.build.shop import generate_shop
from model_store.build.split import shortest, split
from model_store.errors import BuildError

ITEMS, LEARN, VALID, TEST = (f"{name}.jsonl" for name in ("items", "learn", "valid", "test"))


def ingest(config: BuildConfig, folder: Path) -> Dropped:
    """Reads, checks, splits, and writes into `folder`. Raises `BuildError`."""
    dropped = Dropped()
    data = config.data
    if isinstance(data, FileData):
        items = _items(read_rows(data.items, data.columns), config, dropped)
        row_of = {item["item_id"]: row for row, item in enumerate(items)}
        if data.train:
            found = _given(data, row_of, dropped)
        else:
            found = _logged(_log(data, row_of, dropped), config, dropped)
    else:
        shop = generate_shop(data.seed, data.items, data.users, progress=True)
        items = _items(shop.items, config, dropped)
        row_of = {item["item_id"]: row for row, item in enumerate(items)}
        found = _logged(from_sequences(shop.users, row_of, (), dropped), config, dropped)
    if not found.learn or not found.test:
        reasons = "; ".join(f"{reason}: {count}" for reason, count in dropped.counts.items())
        raise BuildError(
            f"nothing is left to learn from or to ask. Dropped: {reasons or 'nothing'}"
        )
    _write(items, found, folder, config, dropped)
    return dropped


def read_items(folder: Path) -> list[Row]:
    """The items that a stage wrote."""
    return read_rows(folder / ITEMS)


def read_split(folder: Path, items: Sequence[Row]) -> Split:
    """The sequences and cases that `ingest` wrote, as rows of `items`."""
    row_of = {item["item_id"]: row for row, item in enumerate(items)}

    def user(record: Row, ids: Sequence[str]) -> UserSequence:
        return UserSequence(
            record["user_id"],
            tuple(row_of[i] for i in ids),
            record.get("profile", {}),
            record.get("scene"),
            tuple(record.get("scenes", ())),
        )

    def cases(name: str) -> list[Case]:
        return [Case(user(r, r["history"]), row_of[r["target"]]) for r in read_rows(folder / name)]

    learn = [user(record, record["sequence"]) for record in read_rows(folder / LEARN)]
    return Split(learn, cases(VALID), cases(TEST))


def _items(rows: Sequence[Row], config: BuildConfig, dropped: Dropped) -> list[Row]:
    kept: dict[str, Row] = {}
    text = config.sids.text if config.sids else ()
    for number, row in enumerate(rows, 1):
        item_id = row.get("item_id")
        if not isinstance(item_id, str) or not item_id:
            dropped.add("items without an id", f"item {number}")
        elif item_id in kept:
            dropped.add("items with an id that came before", item_id)
        elif not config.sids and not row.get("sid"):
            dropped.add("items without a SID", item_id)
        elif config.sids and not any(str(row.get(name) or "").strip() for name in text):
            dropped.add(f"items without text ({', '.join(text)})", item_id)
        else:
            kept[item_id] = dict(row)
    if not kept:
        raise BuildError(f"there is no usable item: {dropped.counts or 'the file is empty'}")
    return list(kept.values())


def _log(data: FileData, row_of: Mapping[str, int], dropped: Dropped) -> Log:
    if data.events:
        log = read_events(data, row_of, dropped)
    else:
        assert data.sequences
        rows = read_clicks(data.sequences, data.columns)
        log = from_sequences(rows, row_of, data.types, dropped)
    if data.users:
        profiles = {row.pop("user_id", ""): row for row in read_rows(data.users, data.columns)}
        as_text = {
            user: texts_of(row["profile"] if isinstance(row.get("profile"), dict) else row)
            for user, row in profiles.items()
        }
        log = Log.of(log.user_ids, log.user, log.item, log.time, log.scene, as_text)
    return log


def _logged(log: Log, config: BuildConfig, dropped: Dropped) -> Split:
    least = config.data.core if isinstance(config.data, FileData) else 0
    if least:
        core = log.core(least)
        dropped.add(f"events outside the {least}-core", "", len(log) - len(core))
        log = core
    needed = shortest(config.split)
    short = [user for user, place in log.users() if place.stop - place.start < needed]
    for user in short:
        dropped.add(f"users with fewer than {needed} events", user)
    return split(log, config.split, config.train.seed)


def _given(data: FileData, row_of: Mapping[str, int], dropped: Dropped) -> Split:
    assert data.train
    log = from_sequences(read_clicks(data.train, data.columns), row_of, data.types, dropped)
    everything = Split([], [], [])
    for user_id, place in log.users():
        scenes = () if log.scene is None else tuple(log.scene[place])
        profile = log.profiles.get(user_id, {})
        rows = tuple(log.item[place].tolist())
        everything.learn.append(UserSequence(user_id, rows, profile, scenes=scenes))
    for path, cases in ((data.valid, everything.valid), (data.test, everything.test)):
        for number, row in enumerate(read_clicks(path, data.columns) if path else [], 1):
            history = [str(item) for item in row.get("history", ())]
            target = str(row.get("target"))
            known = tuple(row_of[item] for item in history if item in row_of)
            dropped.add("events with unknown items", row, len(history) - len(known))
            if target not in row_of:
                dropped.add("cases without a known target", f"{path}, {number}: {target}")
            elif not known:
                dropped.add("cases without a history", f"{path}, {number}")
            else:
                user = UserSequence(
                    str(row.get("user_id")), known, row.get("profile", {}), row.get("scene")
                )
                cases.append(Case(user, row_of[target]))
    return everything


def _write(
    items: Sequence[Row], found: Split, folder: Path, config: BuildConfig, dropped: Dropped
) -> None:
    counts = popularity(found.learn, len(items))
    ids = [item["item_id"] for item in items]
    written: list[Row] = [dict(i, popularity=int(n)) for i, n in zip(items, counts, strict=True)]
    if isinstance(config.data, FileData) and config.data.drop_unclicked:
        used = {row for user in found.learn for row in user.items}
        for case in (*found.valid, *found.test):
            used |= {*case.user.items, case.target}
        written = [item for row, item in enumerate(written) if row in used]
        dropped.add("items that nobody clicked", "", len(items) - len(written))
    write_rows(written, folder / ITEMS)
    write_rows((_record(user, ids) for user in found.learn), folder / LEARN)
    for name, cases in ((VALID, found.valid), (TEST, found.test)):
        write_rows(
            ({**_record(c.user, ids, "history"), "target": ids[c.target]} for c in cases),
            folder / name,
        )
    (folder / "dropped.json").write_text(json.dumps(dropped.counts, indent=2) + "\n")


def _record(user: UserSequence, ids: Sequence[str], name: str = "sequence") -> Row:
    record: Row = {"user_id": user.user_id, name: [ids[row] for row in user.items]}
    more = {"profile": dict(user.profile), "scene": user.scene, "scenes": list(user.scenes)}
    return record | {key: value for key, value in more.items() if value}
