"""SIDs of items that came after the model, by the frozen quantizer of its bundle.

The model has learnt what the SIDs of the catalogue mean, so none of these ever changes, and a later
item can only have a SID whose tokens the model has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model_store.build.sids.drift import Drift
from model_store.build.sids.quantizer import Quantizer
from model_store.build.sids.taken import Taken
from model_store.bundle import Bundle
from model_store.errors import BuildError, BundleError

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
    quantizer.check(bundle.spec)
    texts = quantizer.texts(items)
    row_of = bundle.catalogue.row_of
    new = [i for i, item in enumerate(items) if item.get("item_id") not in row_of]
    _check_items(items, [text or None for text in texts], quantizer.text, set(new))

    sids = {i: bundle.sids[row_of[items[i]["item_id"]]] for i in set(range(len(items))) - set(new)}
    shared, drift = 0, None
    if new:
        vectors = quantizer.vectors([texts[i] for i in new])
        found = quantizer.residual.encode(vectors)
        taken = Taken(
            bundle.trie,
            len(quantizer.residual.sizes),
            bundle.spec.levels[-1].size if bundle.spec.extra else 0,
        )
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
