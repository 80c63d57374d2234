"""What is recommendable at one moment. Nothing in it ever changes."""

from dataclasses import dataclass

from model_store.bundle import Bundle
from model_store.edition import Edition
from model_store.sid import Eligibility, Trie
from service.engine import Engine


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A request takes one and stays with it to its end.

    version:   the number of the last change in it: equal numbers on two replicas of one bundle are
               equal catalogues, and it only grows
    catalogue: its rows are those of `trie` and of the beams that are found in `searched`
    trie:      on the host
    searched:  the same, placed for the engine
    listed:    which rows are still there; None where all of them are
    """

    version: int
    catalogue: Edition
    trie: Trie
    searched: Trie
    listed: Eligibility | None = None

    @classmethod
    def first(cls, bundle: Bundle, engine: Engine) -> "Snapshot":
        """The bundle's catalogue before any change. Reads all of it: not on a loop."""
        edition = Edition.first(bundle.catalogue, bundle.sids)
        return cls(0, edition, bundle.trie, engine.trie)

    def after(self, version: int, catalogue: Edition, engine: Engine) -> "Snapshot":
        """The snapshot of a later edition; the trie stays the same where no row has moved."""
        trie, searched = self.trie, self.searched
        if catalogue.codes is not self.catalogue.codes:
            trie = Trie.build(catalogue.codes, trusted=True)
            searched = engine.place(trie)
        listed = Eligibility.of(None, catalogue.unlisted) if len(catalogue.unlisted) else None
        return Snapshot(version, catalogue, trie, searched, listed)
