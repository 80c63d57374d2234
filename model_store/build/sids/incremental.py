"""SIDs of items that came after the model, by the frozen quantizer of its bundle.

The model has learnt what the SIDs of the catalogue mean, so none of these ever changes, and a later
item can only have a SID whose tokens the model has.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_store.build.embed.base import Vectors
from model_store.build.sids.config import Collisions
from model_store.build.sids.drift import Drift
from model_store.build.sids.quantizer import Quantizer
from model_store.bundle import Bundle
from model_store.errors import BuildError, BundleError
from model_store.sid import END, Codes

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Added:
    """items:  as they came, in their order, each with its `sid`
    known:  how many the bundle has already; they keep their SID
    shared: how many of the others share their SID with another item
    drift:  None if none is new, or if the quantizer keeps no reference errors
    """

    items: list[Row]
    known: int
    shared: int
    drift: Drift | None


def add_items(bundle: Bundle, items: Sequence[Mapping[str, Any]]) -> Added:
    """Gives each item the SID that the quantizer of `bundle` gives to its text.

    Raises `BuildError` for a bundle without a quantizer of its own levels, and `BundleError` with
    one line for each item without an id or a text, or with the id of another.
    """
    if not (bundle.path / "quantizer").is_dir():
        raise BuildError(f"{bundle.path} has no quantizer that could give an item its SID")
    quantizer = Quantizer.load(bundle.path / "quantizer")
    _check_levels(bundle, quantizer)
    texts = quantizer.texts(items)
    row_of = bundle.catalogue.row_of
    new = [i for i, item in enumerate(items) if item.get("item_id") not in row_of]
    _check_items(items, [text or None for text in texts], quantizer.text, set(new))

    sids = {i: bundle.sids[row_of[items[i]["item_id"]]] for i in set(range(len(items))) - set(new)}
    shared, drift = 0, None
    if new:
        vectors = quantizer.vectors([texts[i] for i in new])
        found = quantizer.residual.encode(vectors)
        taken = Taken(bundle.catalogue.codes, len(quantizer.residual.sizes), _numbers(bundle))
        codes = taken.place(
            found,
            quantizer.collisions,
            lambda row: quantizer.residual.last_distances(vectors[[row]], found[[row]])[0],
        )
        shared = taken.shared
        texts_of = bundle.spec.texts(codes[:, : bundle.spec.depth]).to_pylist()
        sids |= dict(zip(new, texts_of, strict=True))
        if quantizer.reference is not None:
            errors = quantizer.residual.errors(vectors, found)
            drift = Drift.measure(errors, quantizer.reference)
    made = [{**item, "sid": sids[i]} for i, item in enumerate(items)]
    return Added(made, len(items) - len(new), shared, drift)


class Taken:
    """The SIDs that are given away, and the search for a free one.

    levels: how many there are without the extra one; numbers: codes of the extra level, maybe none
    """

    def __init__(self, codes: Codes, levels: int, numbers: int) -> None:
        self.numbers = numbers
        self.shared = 0
        self._extras = defaultdict[tuple[int, ...], set[int]](set)
        self._last = defaultdict[tuple[int, ...], set[int]](set)
        for row in codes.tolist():
            self._take(tuple(row[:levels]), row[levels] if len(row) > levels else END)

    def place(
        self, codes: Codes, policy: Collisions, last_distances: Callable[[int], Vectors]
    ) -> Codes:
        """Codes (n, levels) of later items to (n, levels + 1), one after the other.

        Where the codes are taken: `reassign` moves to the nearest free code of the last level;
        then, and with `extra`, the next number of the extra level is given. Where there is none,
        and with `keep`, the item shares the SID without a number.
        """
        placed = []
        for row, found in enumerate(codes.tolist()):
            sid = tuple(found)
            if policy == "reassign" and sid in self._extras:
                sid = self._nearest_free(sid, last_distances(row))
            number = END
            if policy != "keep" and sid in self._extras:
                following = max(self._extras[sid]) + 1
                number = following if following < self.numbers else END
            self.shared += number in self._extras.get(sid, ())
            self._take(sid, number)
            placed.append((*sid, number))
        return np.array(placed, np.int32)

    def _nearest_free(self, sid: tuple[int, ...], distances: Vectors) -> tuple[int, ...]:
        taken = self._last[sid[:-1]]
        by_distance: Iterable[int] = np.argsort(distances, kind="stable").tolist()
        free = next((code for code in by_distance if code not in taken), sid[-1])
        return (*sid[:-1], free)

    def _take(self, sid: tuple[int, ...], number: int) -> None:
        self._extras[sid].add(number)
        self._last[sid[:-1]].add(sid[-1])


def _numbers(bundle: Bundle) -> int:
    """How many numbers the extra level has; none without one."""
    return bundle.spec.levels[-1].size if bundle.spec.extra else 0


def _check_levels(bundle: Bundle, quantizer: Quantizer) -> None:
    levels = bundle.spec.levels[: bundle.spec.depth - bundle.spec.extra]
    sizes, known = quantizer.residual.sizes, tuple(level.size for level in levels)
    if len(sizes) != len(known) or any(s > k for s, k in zip(sizes, known, strict=True)):
        raise BuildError(f"the quantizer has codebooks of {sizes}, the bundle's SIDs of {known}")


def _check_items(
    items: Sequence[Mapping[str, Any]],
    texts: Sequence[str | None],
    attributes: Sequence[str],
    new: set[int],
) -> None:
    problems = []
    seen: set[str] = set()
    for i, item in enumerate(items):
        name = item.get("item_id")
        if not isinstance(name, str) or not name:
            problems.append(f"item {i + 1}: item_id must be a non-empty string, not {name!r}")
            continue
        if name in seen:
            problems.append(f"item {i + 1}: another one has the id {name!r}")
        if i in new and texts[i] is None:
            problems.append(f"item {name!r} has no {' or '.join(attributes)}")
        seen.add(name)
    if problems or not items:
        raise BundleError(problems[:20] or ["there are no items"])
