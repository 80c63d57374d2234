"""Searches before anybody waits for one: short and long prompts, alone and together.

What is slow at first is slow now (memory is touched, kernels are chosen for their shapes), and a
model that does not answer, or answers what is no number, is found before it is active.
"""

import asyncio
import math
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from model_store.bundle import Bundle
from service.catalogue.snapshot import Snapshot
from service.engine import Beam, Engine, Query
from service.errors import EngineError
from service.prompt import PromptBuilder

_HISTORIES = (1, 5, 20, 50)


@dataclass(frozen=True, slots=True)
class WarmedUp:
    searches: int
    seconds: float


async def warm_up(bundle: Bundle, engine: Engine, now: Snapshot, beam_width: int) -> WarmedUp:
    """Searches with the model as it is and with each adapter. Raises `EngineError`."""
    began = perf_counter()
    queries = await asyncio.to_thread(lambda: list(_queries(bundle, now, beam_width)))
    alone, together = queries[:1], queries[1:]
    found = [await engine.search(query) for query in alone]
    found += await asyncio.gather(*(engine.search(query) for query in together))
    for beams in found:
        _check(beams, min(beam_width, now.trie.n_nodes(now.trie.depth)))
    return WarmedUp(len(found), perf_counter() - began)


def _queries(bundle: Bundle, now: Snapshot, beam_width: int) -> Iterator[Query]:
    builder, codes = PromptBuilder(bundle), now.catalogue.codes
    histories = [
        codes[np.linspace(0, len(codes) - 1, length).astype(np.int64)] for length in _HISTORIES
    ]
    for history in histories:
        yield Query(builder.build_from(history)[0], beam_width, trie=now.searched)
    for adapter in bundle.adapters:
        tokens, _ = builder.build_from(histories[0], scene=adapter)
        yield Query(tokens, beam_width, adapter=adapter, trie=now.searched)


def _check(beams: list[Beam], expected: int) -> None:
    found = sum(math.isfinite(beam.score) for beam in beams)
    if found < expected:
        raise EngineError(
            f"a search of the warm-up found {found} SIDs with a score instead of {expected}: the"
            " model does not compute, as where its weights are no numbers"
        )
