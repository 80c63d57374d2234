"""What is recommendable at one moment. Nothing in it ever changes."""

from dataclasses import dataclass

from model_store.bundle import Bundle
from model_store.edition import Edition
from model_store.sid import Eligibility, Trie
from service.eligibility.filter import Filter
from service.eligibility.filters import Filters
from service.eligibility.policy import Policy
from service.engine import Engine


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A request takes one and stays with it to its end.

    version:   the number of the last change in it: equal numbers on two replicas of one bundle are
               equal catalogues, and it only grows
    catalogue: its rows are those of `trie` and of the beams that are found in `searched`
    trie:      on the host
    searched:  the same, placed for the engine
    filters:   over those rows, whether items are still there or not
    """

    version: int
    catalogue: Edition
    trie: Trie
    searched: Trie
    filters: Filters

    @classmethod
    def first(cls, bundle: Bundle, engine: Engine, policy: Policy) -> "Snapshot":
        """The bundle's catalogue before any change. Reads all of it: not on a loop.

        Raises `InvalidInput` for rules that are about what the catalogue lacks.
        """
        edition = Edition.first(bundle.catalogue, bundle.sids)
        filters = Filters(edition, policy.rules, cache_bytes=policy.cache_bytes)
        filters.prepare()
        return cls(0, edition, bundle.trie, engine.trie, filters)

    def after(self, version: int, catalogue: Edition, engine: Engine, policy: Policy) -> "Snapshot":
        """The snapshot of a later edition. What depends only on what has not changed is kept: the
        trie where no row has moved, and filters where no item has a new version either."""
        trie, searched, filters = self.trie, self.searched, self.filters
        if catalogue.codes is not self.catalogue.codes:
            trie = Trie.build(catalogue.codes, trusted=True)
            searched = engine.place(trie)
        if catalogue.lines is not self.catalogue.lines:
            filters = Filters(catalogue, policy.rules, cache_bytes=policy.cache_bytes)
        return Snapshot(version, catalogue, trie, searched, filters)

    async def eligible(self, wanted: Filter | None = None) -> Eligibility | None:
        """The rows of items that are there and satisfy the deployment's rules and a filter; None
        for all rows. Raises `InvalidInput` for a filter over what the catalogue lacks."""
        allowed = await self.filters.eligible(wanted)
        gone = self.catalogue.unlisted
        return (allowed or Eligibility.of()).without(gone) if len(gone) else allowed
