"""The filter of a request, read once: shops send the same few again and again."""

import marshal
from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import WrapValidator

from service.eligibility.filter import Filter

_MOST_KEPT = 256
_LONGEST = 1 << 16  # of a text; so that those kept stay within a few dozen megabytes


class Read:
    """Filters by the JSON that they were read from. For one event loop."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Filter] = OrderedDict()

    def filter(self, sent: Any, read: Callable[[Any], Filter]) -> Filter:
        """What `read` makes of `sent`, the same object each time while there is room."""
        if not isinstance(sent, dict):
            return read(sent)
        try:
            # The quickest text of nested lists. Unlike `==` it tells 1, 1.0 and true apart; where
            # it differs for equal values, the filter is read once more.
            text = marshal.dumps(sent)
        except ValueError:  # deeper than any filter may be, or nothing that JSON has
            return read(sent)
        kept = self._kept.get(text)
        if kept is not None:
            self._kept.move_to_end(text)
            return kept
        kept = read(sent)
        if len(text) <= _LONGEST:
            self._kept[text] = kept
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return kept


WantedFilter = Annotated[Filter, WrapValidator(Read().filter)]
"""A field for one. Filters never change, so that requests can share them."""
