"""The attributes of one catalogue that a filter can test."""

from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from model_store.catalogue import Catalogue
from service.eligibility.column import Coded, Column, Ids, Numbers, Several, is_number, is_text

Type = Literal["text", "number", "boolean", "several"]

_KINDS: dict[Type, type[Coded] | type[Numbers] | type[Several]] = {
    "text": Coded,
    "number": Numbers,
    "boolean": Coded,
    "several": Several,
}
"""How attributes are laid out."""

# So many values tell a column of categories from one of titles.
_SAMPLE = 10_000


class Columns:
    """The columns of one catalogue that a filter can test, each made when it is first asked for."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._made: dict[str, Column] = {}
        self.types: dict[str, Type] = {
            field.name: type_
            for field in catalogue.table.schema
            if (type_ := _type(field.type)) is not None
        }
        """What filters may compare each attribute with."""
        self.names = list(self.types)

    def __len__(self) -> int:
        """Items."""
        return len(self._catalogue)

    def __contains__(self, name: str) -> bool:
        """Whether the column has been made."""
        return name in self._made

    def __getitem__(self, name: str) -> Column:
        """Raises KeyError for a column that is not there, or that no filter can test."""
        if name not in self._made:
            kind = _KINDS[self.types[name]]
            # Two threads may both make it; either does.
            self._made[name] = (
                Ids(self._catalogue.row_of, len(self))
                if name == "item_id"
                else kind(self._catalogue.table.column(name))
            )
        return self._made[name]

    def prepare(self) -> None:
        """Makes those that filters are likely to test: all but texts for people to read."""
        for name in self.names:
            some = self._catalogue.table.column(name).slice(0, _SAMPLE)
            prose = is_text(some.type) and pc.count_distinct(some).as_py() > len(some) // 2
            if name == "item_id" or not prose:
                self[name]


def _type(type_: pa.DataType) -> Type | None:
    """What attributes of an Arrow type hold; None for those that no filter can test."""
    if is_text(type_):
        return "text"
    if is_number(type_):
        return "number"
    if pa.types.is_boolean(type_):
        return "boolean"
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        inner = type_.value_type
        return "several" if is_text(inner) or is_number(inner) else None
    return None
