"""A catalogue after changes, made from the one before them at the cost of the changes and of a few
passes over flat arrays: nothing is sorted anew, and no Python object is touched for an item that
stays as it is.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model_store.catalogue import Catalogue, counts_of
from model_store.ledger import ByRow, Ledger, Lines, RowOf
from model_store.sid import Codes

Rows = npt.NDArray[np.int64]
Counts = dict[str | None, npt.NDArray[np.float64]]
Orders = dict[str | None, Rows]

MOST_UNLISTED = 1000
"""Rows that may stand about for items that are gone: every search excludes them one by one."""


class Edition(Catalogue):
    """A catalogue whose rows are lines of a ledger. `Edition.first` makes one, `edited` the next.

    ledger:   shared with the editions before and behind it
    lines:    (rows,) which version of which item a row is
    sids:     the SID of each row as text
    unlisted: rows, ascending, of items that are gone. They keep their places until rows have to
              move anyway, or until there are too many; `row_of` and `popular` know them no more.
    """

    ledger: Ledger
    lines: Lines
    sids: Sequence[str]
    unlisted: Rows
    _versions: pa.Table

    def __init__(
        self, ledger: Ledger, lines: Lines, codes: Codes, unlisted: Rows, counts: Counts
    ) -> None:
        known = np.full(len(ledger), -1, np.int32)
        known[lines] = np.arange(len(lines), dtype=np.int32)
        known[lines[unlisted]] = -1
        values: dict[str, Any] = {
            "ledger": ledger,
            "lines": lines,
            "codes": codes,
            "unlisted": unlisted,
            "item_ids": ByRow(ledger.ids, lines),
            "titles": ByRow(ledger.titles, lines),
            "sids": ByRow(ledger.sids, lines),
            "row_of": RowOf(ledger, known),
            "_counts": counts,
            "_popular": {},
            "_versions": ledger.table,
        }
        self.__dict__.update(values)

    @classmethod
    def first(cls, catalogue: Catalogue, sids: Sequence[str]) -> "Edition":
        """A catalogue as it is; `sids` are the texts of its SIDs."""
        ledger = Ledger(
            catalogue.table, catalogue.item_ids, catalogue.titles, sids, catalogue.codes
        )
        counts = {s: catalogue.popularity_in(s) for s in (None, *catalogue.scenes)}
        nothing = np.empty(0, np.int64)
        edition = cls(ledger, np.arange(len(catalogue)), catalogue.codes, nothing, counts)
        edition._popular.update({scene: catalogue.popular(scene) for scene in counts})
        return edition

    @cached_property
    def table(self) -> pa.Table:
        """Made when it is first asked for."""
        return self._versions.take(pa.array(self.lines))

    @property
    def scenes(self) -> list[str]:
        return [scene for scene in self._counts if scene is not None]

    @property
    def listed(self) -> int:
        """How many items there are."""
        return len(self) - len(self.unlisted)

    def attributes(self, row: int) -> dict[str, Any]:
        values: dict[str, Any] = self._versions.slice(int(self.lines[row]), 1).to_pylist()[0]
        return values

    def sid_of(self, item_id: str) -> str | None:
        """The SID of an item that is here, or was."""
        line = self.ledger.line(item_id, len(self._versions))
        return None if line is None else self.ledger.sids[line]

    def codes_of(self, item_ids: Iterable[str]) -> Codes:
        """The SIDs (n, depth) of those items that are here, or were, in their order: a history may
        speak of items that are gone."""
        behind = len(self._versions)
        lines = [
            line for item_id in item_ids if (line := self.ledger.line(item_id, behind)) is not None
        ]
        return self.ledger.codes[np.array(lines, np.int64)]

    def edited(
        self, table: pa.Table, sids: Sequence[str], codes: Codes, gone: Sequence[str] = ()
    ) -> "Edition":
        """The catalogue after changes, which name each item once at most.

        table: items to be added, or new versions of items, with the columns of the others
        sids:  their SIDs, as text and as codes (items, depth)
        gone:  ids of items to be removed; unknown ones change nothing

        `codes` of the result is the very array of this one unless rows moved, and so is `lines`
        unless there are new versions.
        """
        lines, counts = self.ledger.write(table, sids, codes), counts_of(table, self._counts)
        places = [self.row_of.get(item_id) for item_id in table.column("item_id").to_pylist()]
        stays = np.array(
            [row is not None and self._may_stay(row, codes[i], counts, i)
             for i, row in enumerate(places)],
            bool,
        )  # fmt: skip
        at = np.array([row for row, may in zip(places, stays, strict=True) if may], np.int64)
        moved = [row for row, may in zip(places, stays, strict=True) if row is not None and not may]
        removed = [row for item_id in gone if (row := self.row_of.get(item_id)) is not None]
        draft = _Draft(self.lines, self.codes, {**self._counts})
        if len(at):
            draft.lines = self.lines.copy()
            draft.lines[at] = lines[stays]
        recounted = draft.recount(at, {scene: count[stays] for scene, count in counts.items()})
        unlisted = np.union1d(self.unlisted, np.array([*moved, *removed], np.int64))
        leave = np.zeros(len(self), bool)  # the orders of popularity
        leave[unlisted] = leave[recounted] = True
        orders = {scene: order[~leave[order]] for scene, order in self._popular.items()}
        enter = recounted
        if not stays.all() or MOST_UNLISTED < len(unlisted) < len(self):
            new = {scene: count[~stays] for scene, count in counts.items()}
            number, added = draft.rebuild(unlisted, lines[~stays], codes[~stays], new, self.ledger)
            orders = {scene: number[order] for scene, order in orders.items()}
            enter = np.concatenate([number[recounted], added])
            unlisted = np.empty(0, np.int64)
        edition = Edition(self.ledger, draft.lines, draft.codes, unlisted, draft.counts)
        edition._popular.update(
            {scene: draft.entered(order, enter, scene) for scene, order in orders.items()}
        )
        return edition

    def compacted(self) -> "Edition":
        """The same over a ledger without the versions that no item has any more."""
        ledger, number = self.ledger.compacted()
        edition = Edition(ledger, number[self.lines], self.codes, self.unlisted, self._counts)
        edition._popular.update(self._popular)
        return edition

    def _may_stay(self, row: int, codes: npt.NDArray[np.int32], counts: Counts, i: int) -> bool:
        """Whether a new version of the item at `row` belongs to the same place."""
        if (self.codes[row] != codes).any():
            return False
        if counts[None][i] == self._counts[None][row]:
            return True
        beside = [other for other in (row - 1, row + 1) if 0 <= other < len(self)]
        return not any((self.codes[other] == codes).all() for other in beside)


class _Draft:
    """The arrays of the next edition."""

    def __init__(self, lines: Lines, codes: Codes, counts: Counts) -> None:
        self.lines = lines
        self.codes = codes
        self.counts = counts

    def recount(self, rows: Rows, counts: Counts) -> Rows:
        """Gives rows new counts; those of them whose counts are others than before."""
        changed = np.zeros(len(rows), bool)
        for scene, count in self.counts.items():
            changed |= count[rows] != counts[scene]
        if changed.any():
            for scene, count in self.counts.items():
                self.counts[scene] = count.copy()
                self.counts[scene][rows] = counts[scene]
        return rows[changed]

    def rebuild(
        self, removed: Rows, lines: Lines, codes: Codes, counts: Counts, ledger: Ledger
    ) -> tuple[Rows, Rows]:
        """Takes rows out and puts `lines` where they belong.

        Returns the new number of each row there was, -1 for a removed one, and of each line.
        """
        count, ids = self.counts[None], ledger.ids

        def key(row: int) -> tuple[list[int], float, str]:
            return self.codes[row].tolist(), -float(count[row]), ids[self.lines[row]]

        new = [
            (code, -popularity, ids[line])
            for code, popularity, line in zip(
                codes.tolist(), counts[None].tolist(), lines.tolist(), strict=True
            )
        ]
        order = np.array(sorted(range(len(new)), key=new.__getitem__), np.int64)
        place = [bisect_left(range(len(self.lines)), new[i], key=key) for i in order]
        rows = np.delete(np.arange(len(self.lines)), removed)
        at = np.array(place, np.int64) - np.searchsorted(removed, place)
        source = np.insert(rows, at, len(self.lines) + order)
        number = np.full(len(self.lines) + len(lines), -1, np.int64)
        number[source] = np.arange(len(source))
        added = number[len(self.lines) :]
        self.lines = np.concatenate([self.lines, lines])[source]
        self.codes = np.concatenate([self.codes, codes])[source]
        self.counts = {
            scene: np.concatenate([count, counts[scene]])[source]
            for scene, count in self.counts.items()
        }
        return number, added

    def entered(self, order: Rows, rows: Rows, scene: str | None) -> Rows:
        """An order of popularity with `rows` where they belong."""
        count, overall = self.counts[scene], self.counts[None]

        def key(row: int) -> tuple[float, float, int]:
            return -float(count[row]), -float(overall[row]), row

        ranked = sorted(rows.tolist(), key=key)
        at = [bisect_left(order, key(row), key=key) for row in ranked]
        return np.insert(order, np.array(at, np.int64), np.array(ranked, np.int64))
