"""Which SIDs are given away, and the search for a free one: how later items are told apart."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from model_store.build.embed.base import Vectors
from model_store.build.sids.config import Collisions
from model_store.sid import END, Codes, Trie


class Taken:
    """The SIDs of a catalogue, and of those that `place` gives away.

    It looks into the trie as it goes: a catalogue of any size costs nothing to begin with.

    levels: how many there are without the extra one; numbers: codes of the extra level, maybe none
    """

    def __init__(self, trie: Trie, levels: int, numbers: int) -> None:
        self.numbers = numbers
        self.shared = 0
        self._trie = trie
        self._levels = levels
        self._behind = defaultdict[tuple[int, ...], set[int]](set)

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
            if policy == "reassign" and self._extras(sid):
                sid = self._nearest_free(sid, last_distances(row))
            extras, number = self._extras(sid), END
            if policy != "keep" and extras:
                following = max(extras) + 1
                number = following if following < self.numbers else END
            self.shared += number in extras
            self.take((*sid, number))
            placed.append((*sid, number))
        return np.array(placed, np.int32).reshape(-1, self._levels + 1)

    def take(self, sid: Sequence[int]) -> None:
        """Gives a SID away, (levels + 1) codes or, without an extra level, (levels)."""
        base = tuple(sid[: self._levels])
        self._behind[base].add(sid[self._levels] if len(sid) > self._levels else END)
        self._behind[base[:-1]].add(base[-1])

    def _extras(self, sid: tuple[int, ...]) -> set[int]:
        """The codes of the extra level behind complete codes; none where these are free."""
        return self._behind[sid].union(self._trie.codes_behind(sid))

    def _nearest_free(self, sid: tuple[int, ...], distances: Vectors) -> tuple[int, ...]:
        taken = self._behind[sid[:-1]].union(self._trie.codes_behind(sid[:-1]))
        by_distance: Iterable[int] = np.argsort(distances, kind="stable").tolist()
        free = next((code for code in by_distance if code not in taken), sid[-1])
        return (*sid[:-1], free)
