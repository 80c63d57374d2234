"""What changes make of the items that they name: first as records, then as an edition.

Knows the bundle and the records so far; no Redis, no waiting.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pyarrow as pa
import structlog
from structlog.typing import FilteringBoundLogger

from model_store.bundle import Bundle
from model_store.edition import Edition
from model_store.errors import SidError
from service.catalogue.assign import Assigner
from service.catalogue.changes import Record
from service.catalogue.snapshot import Snapshot
from service.catalogue.values import check_attributes, check_value
from service.errors import InvalidInput

Status = Literal["added", "changed", "unchanged", "deleted", "absent"]

_log: FilteringBoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Put:
    """A new item, or what changes of one: attributes that are not named stay as they are.

    attributes: the title among them, where it is given
    """

    item_id: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    sid: str | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    item_id: str


Change = Put | Delete


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a change; `sid` is that of the item, where there is one."""

    item_id: str
    status: Status
    sid: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """records: one for each item that changes; outcomes: one for each change, or why not."""

    records: list[Record]
    outcomes: list[Outcome | InvalidInput]


class Planner:
    """For one bundle. Its methods take milliseconds for many items: not on a loop."""

    def __init__(self, bundle: Bundle, assigner: Assigner) -> None:
        self._bundle = bundle
        self._assigner = assigner
        self._schema: pa.Schema = bundle.catalogue.table.schema
        self._row_of = bundle.catalogue.row_of

    def refused(self, changes: Sequence[Change]) -> dict[int, InvalidInput]:
        """What is wrong with changes whatever the catalogue holds, by their places."""
        found = {}
        for i, change in enumerate(changes):
            try:
                if isinstance(change, Put):
                    self._check(change)
            except InvalidInput as error:
                found[i] = error
        return found

    def _check(self, put: Put) -> None:
        given = dict(put.attributes)
        check_value("title", given.pop("title", None), pa.string())
        check_attributes(given, self._schema)
        if put.sid is not None:
            self._assigner.check(put.sid)

    def plan(
        self, changes: Sequence[Change], records: Mapping[str, Record], snapshot: Snapshot
    ) -> Plan:
        """What checked changes, one after the other, make of `records`, of which `snapshot` is."""
        draft: dict[str, Record] = {}
        outcomes: list[Outcome | InvalidInput] = []
        for change in changes:
            before = draft.get(change.item_id) or records.get(change.item_id)
            try:
                status = self._status(change, before, change.item_id in draft, snapshot)
                if status in ("added", "changed", "deleted"):
                    draft[change.item_id] = self._record(change, before)
                outcomes.append(Outcome(change.item_id, status))
            except InvalidInput as error:
                outcomes.append(error)
        refused = self._assign(draft, snapshot)
        for i, outcome in enumerate(outcomes):
            if isinstance(outcome, InvalidInput):
                continue
            if outcome.item_id in refused:
                outcomes[i] = refused[outcome.item_id]
            elif outcome.status not in ("deleted", "absent"):
                record = draft.get(outcome.item_id) or records.get(outcome.item_id)
                outcomes[i] = replace(outcome, sid=self._sid(outcome.item_id, record))
        return Plan(list(draft.values()), outcomes)

    def complete(self, records: Sequence[Record], snapshot: Snapshot) -> dict[str, str]:
        """SIDs for those items among `records` that this bundle does not know and that nobody has
        given one in its words: they came while another was in service."""
        lacking = {
            record.item_id: record
            for record in records
            if not (record.deleted or record.sid or record.item_id in self._row_of)
        }
        for item_id, record in list(lacking.items()):
            try:
                self._assigner.check_text(record.attributes)
            except InvalidInput as error:
                _log.warning("item without a SID", item_id=item_id, reason=str(error))
                del lacking[item_id]
        sids = self._assigner.assign([r.attributes for r in lacking.values()], snapshot.trie)
        return {
            item_id: sid for item_id, sid in zip(lacking, sids, strict=True) if isinstance(sid, str)
        }

    def edition(self, records: Sequence[Record], before: Edition) -> Edition:
        """The catalogue after `records`. Items that have no SID in this bundle stay away."""
        gone = [record.item_id for record in records if record.deleted]
        put = [r for r in records if not r.deleted and self._sid(r.item_id, r) is not None]
        sids = [str(self._sid(record.item_id, record)) for record in put]
        codes = self._bundle.spec.parse(sids)
        return before.edited(self._table(put), sids, codes, gone)

    def usable(self, records: Sequence[Record]) -> list[Record]:
        """The records, without SIDs that this bundle cannot have: a bundle of the same name and
        version had other levels."""
        if self._possible(records):
            return list(records)
        return [
            record if self._possible([record]) else replace(record, sid=None) for record in records
        ]

    def _possible(self, records: Sequence[Record]) -> bool:
        try:
            self._bundle.spec.parse(record.sid for record in records if record.sid)
        except SidError:
            return False
        return True

    def _status(
        self, change: Change, before: Record | None, drafted: bool, snapshot: Snapshot
    ) -> Status:
        known = change.item_id in self._row_of
        there = known if before is None else not before.deleted
        if isinstance(change, Delete):
            return "deleted" if there else "absent"
        if not there:
            if change.sid is None and not known:
                self._assigner.check_text(change.attributes)
            return "added"
        row = None if drafted else snapshot.catalogue.row_of.get(change.item_id)
        if row is None:
            return "changed"
        now = {**snapshot.catalogue.attributes(row), "sid": snapshot.catalogue.sids[row]}
        asked = {**change.attributes, "sid": change.sid or now["sid"]}
        return "unchanged" if all(now[name] == asked[name] for name in asked) else "changed"

    def _record(self, change: Change, before: Record | None) -> Record:
        known = change.item_id in self._row_of
        if isinstance(change, Delete):
            return Record(change.item_id, {}, deleted=True, sid=before.sid if before else None)
        attributes: dict[str, Any] = {}
        sid = before.sid if before is not None and (known or not before.deleted) else None
        if before is not None and before.deleted and known:
            # It comes back as a new item, and not with what the bundle said of the old one.
            attributes = dict.fromkeys(name for name in self._schema.names if name != "item_id")
        elif before is not None and not before.deleted:
            attributes = dict(before.attributes)
        attributes |= change.attributes
        return Record(change.item_id, attributes, sid=change.sid or sid)

    def _assign(self, draft: dict[str, Record], snapshot: Snapshot) -> dict[str, InvalidInput]:
        """Gives the records their SIDs, and takes out those that cannot have one."""
        new = {r.item_id: r for r in draft.values() if self._lacks_sid(r)}
        given = [record.sid for record in draft.values() if record.sid]
        sids = self._assigner.assign([r.attributes for r in new.values()], snapshot.trie, given)
        refused = {}
        for item_id, sid in zip(new, sids, strict=True):
            if isinstance(sid, InvalidInput):
                refused[item_id] = sid
                del draft[item_id]
            else:
                draft[item_id] = replace(new[item_id], sid=sid)
        return refused

    def _lacks_sid(self, record: Record) -> bool:
        return not record.deleted and self._sid(record.item_id, record) is None

    def _sid(self, item_id: str, record: Record | None) -> str | None:
        if record is not None and record.sid:
            return record.sid
        row = self._row_of.get(item_id)
        return None if row is None else self._bundle.sids[row]

    def _table(self, records: Sequence[Record]) -> pa.Table:
        """Items as rows of the catalogue's columns."""
        rows = {r.item_id: row for r in records if (row := self._row_of.get(r.item_id)) is not None}
        taken = self._bundle.catalogue.table.take(pa.array(rows.values(), pa.int64())).to_pylist()
        base = dict(zip(rows, taken, strict=True))
        items = [
            {**base.get(r.item_id, {}), **self._fitting(r), "item_id": r.item_id} for r in records
        ]
        return pa.Table.from_pylist(items, schema=self._schema)

    def _fitting(self, record: Record) -> dict[str, Any]:
        """Attributes that this bundle has, with values of its types: it may be another than the
        one that they were checked against."""
        fitting = {}
        for name in record.attributes.keys() & set(self._schema.names):
            try:
                check_value(name, record.attributes[name], self._schema.field(name).type)
            except InvalidInput as error:
                _log.warning("attribute left out", item_id=record.item_id, reason=str(error))
            else:
                fitting[name] = record.attributes[name]
        return fitting
