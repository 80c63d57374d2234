"""The filters of one catalogue: compiled once, kept by content while there is room."""

import asyncio
from collections import OrderedDict

from model_store.catalogue import Catalogue
from model_store.sid import Eligibility
from service.eligibility.columns import Columns, Type
from service.eligibility.condition import Condition, bind, both
from service.eligibility.filter import Filter

_MOST_KEPT = 1024


class Filters:
    """Makes eligibilities of filters. It belongs to one catalogue and is thrown away with it.

    rules:       must hold for every answer; `InvalidInput` names a part of them that this
                 catalogue cannot obey
    cache_bytes: that compiled filters may take, four an item and filter; the last one always stays

    Not for several threads, `compile` aside.
    """

    def __init__(
        self, catalogue: Catalogue, rules: Filter | None = None, *, cache_bytes: int = 64 << 20
    ) -> None:
        self._columns = Columns(catalogue)
        self._kept: OrderedDict[Condition, Eligibility] = OrderedDict()
        self._known: OrderedDict[int, tuple[Filter, Condition]] = OrderedDict()
        self._most = min(max(1, cache_bytes // (4 * len(catalogue) + 4)), _MOST_KEPT)
        self._rules = None if rules is None else bind(rules, self._columns, "rules")
        self._ruled = None if self._rules is None else self.compile(self._rules)

    def types(self) -> dict[str, Type]:
        """The attributes that filters can test, with what they hold."""
        return self._columns.types

    async def eligible(self, wanted: Filter | None, field: str = "filter") -> Eligibility | None:
        """What the rules and a filter at `field` of the request leave; None for everything.

        A filter that is not kept is compiled off the loop. Raises `InvalidInput`.
        """
        if wanted is None:
            return self._ruled
        condition = await self._condition(wanted, field)
        kept = self._kept.get(condition)
        if kept is None:
            return self._keep(condition, await asyncio.to_thread(self.compile, condition))
        self._kept.move_to_end(condition)
        return kept

    async def _condition(self, wanted: Filter, field: str) -> Condition:
        """Bound only the first time that a filter comes; it is held, or its id could be another's
        later."""
        known = self._known.get(id(wanted))
        if known is not None:
            self._known.move_to_end(id(wanted))
            return known[1]
        if not all(name in self._columns for name in wanted.names()):
            await asyncio.to_thread(self.bind, wanted, field)  # makes columns
        condition = self.bind(wanted, field)
        self._known[id(wanted)] = wanted, condition
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return condition

    def prepare(self) -> None:
        """Lays out the columns that filters are likely to test, so that no request waits for it."""
        self._columns.prepare()

    def bind(self, wanted: Filter, field: str = "filter") -> Condition:
        """The filter and the rules as one condition. Raises `InvalidInput`."""
        condition = bind(wanted, self._columns, field)
        return condition if self._rules is None else both(self._rules, condition)

    def compile(self, condition: Condition) -> Eligibility:
        """One pass over each column that the condition tests, and one to count."""
        return Eligibility.of(condition.mask(self._columns))

    def _keep(self, condition: Condition, compiled: Eligibility) -> Eligibility:
        self._kept[condition] = compiled
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return compiled
