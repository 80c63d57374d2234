"""Two orders of items: that of the items file, in which a build counts, and that of the catalogue,
which is sorted by SID and in which a bundle counts."""

from collections.abc import Sequence
from dataclasses import replace

from model_store.build.evaluate import Case, Ranker
from model_store.build.files import Row
from model_store.bundle import Bundle


def catalogue_rows(bundle: Bundle, items: Sequence[Row]) -> list[int]:
    """The catalogue row of each item of the items file."""
    return [bundle.catalogue.row_of[item["item_id"]] for item in items]


def moved(case: Case, rows: Sequence[int]) -> Case:
    """A case in other rows: row i becomes `rows[i]`."""
    history = replace(case.user, items=tuple(rows[i] for i in case.user.items))
    return Case(history, rows[case.target])


def reordered(ranker: Ranker, bundle: Bundle, items: Sequence[Row]) -> Ranker:
    """A ranker over catalogue rows, for cases in the order of the items file, and back."""
    to_catalogue = catalogue_rows(bundle, items)
    to_file = {row: i for i, row in enumerate(to_catalogue)}

    def rank(cases: Sequence[Case]) -> list[list[int]]:
        ranked = ranker([moved(case, to_catalogue) for case in cases])
        return [[to_file[row] for row in rows] for rows in ranked]

    return rank
