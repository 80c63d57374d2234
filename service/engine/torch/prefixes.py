"""Keys and values of prompts seen lately, for prompts that begin with the same tokens.

The prompt of a user who comes back differs at its end only: a history grows there. What is kept is
found by its blocks of tokens, each named after itself and all blocks before it (as vLLM's prefix
caching does), and then compared token by token, so a whole prefix is used and not only whole
blocks.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_BLOCK = 16

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Prefix:
    """Keys and values (layers, 2·KV heads, n or more, head size) of a prompt's first n tokens."""

    tokens: int
    kept: Tensor | None


NOTHING = Prefix(0, None)


@dataclass(frozen=True, slots=True)
class _Entry:
    ids: Ids
    kept: Tensor
    names: list[int]


class PrefixCache:
    """The last prompts, as many as fit into `limit` bytes; 0 keeps none. For one thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._entries: OrderedDict[int, _Entry] = OrderedDict()  # the next to go first
        self._places: dict[int, int] = {}  # of the last entry with that block
        self._next = 0

    def find(self, prompt: Sequence[int]) -> Prefix:
        """The longest known prefix. The last token is never part of it: what follows it is asked.

        What it was found in goes last now; but first where the prompt at hand, which will be kept
        as well, has most of it.
        """
        if not self._entries:
            return NOTHING
        ids = np.array(prompt, np.int64)
        number = None
        for name in _names(ids[:-1]):
            if name not in self._places:
                break
            number = self._places[name]
        if number is None:
            return NOTHING
        entry = self._entries[number]
        most = min(len(ids) - 1, len(entry.ids))
        differ = np.flatnonzero(ids[:most] != entry.ids[:most])
        same = int(differ[0]) if len(differ) else most
        again = same == len(ids) - 1
        self._entries.move_to_end(number, last=again or 2 * same <= len(entry.ids))
        return Prefix(same, entry.kept) if same else NOTHING

    def keep(self, prompt: Sequence[int], kept: Sequence[Tensor]) -> None:
        """Copies the keys and values of a prompt: per layer (2·KV heads, n, head size)."""
        size = sum(layer.nbytes for layer in kept)
        names = list(_names(np.array(prompt, np.int64)))
        if size > self._limit or not names:
            return
        while self._bytes + size > self._limit:
            self._drop(next(iter(self._entries)))
        entry = _Entry(np.array(prompt, np.int64), torch.stack(tuple(kept)), names)
        self._entries[self._next] = entry
        self._places.update(dict.fromkeys(names, self._next))
        self._bytes += size
        self._next += 1

    def _drop(self, number: int) -> None:
        entry = self._entries.pop(number)
        self._bytes -= entry.kept.nbytes
        for name in entry.names:
            if self._places.get(name) == number:
                del self._places[name]


def _names(ids: Ids) -> Iterator[int]:
    """A name for each whole block, which says what stands in front of it too."""
    name = 0
    for start in range(0, len(ids) - _BLOCK + 1, _BLOCK):
        name = hash((name, ids[start : start + _BLOCK].tobytes()))
        yield name
