"""The contestants of the trie benchmark, on the same steps of the same searches."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch

from bench.prefixes import Best, LogitsProcessor, PrefixDictionary, PrefixSets, Step, named
from bench.timing import Spread, alternate, timed
from model_store.sid import Codes, EligibilityBatch, Trie, sort_order
from service.engine.beams import Beams, advance

TRIE, CHILDREN, FLOOR = "trie", "its children alone", "floor"
DICTIONARY, PROCESSOR, ORACLE = "dictionary", "dictionary in generate", "set of tuples"

_TURN_S = 0.005
_ORACLE_WALKS = 1


class Disagreement(Exception):
    """A contestant found other prefixes, or other scores, than the trie did."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Levels of codes, drawn evenly or with few codes taking most items."""

    levels: int
    size: int
    skewed: bool = False

    def __str__(self) -> str:
        return f"{self.levels} × {self.size:,}{', skewed' if self.skewed else ''}"

    def draw(self, items: int) -> Codes:
        """Codes of random items (items, levels), in any order."""
        rng = np.random.default_rng(20)
        codes = np.empty((items, self.levels), np.int32)
        for level in range(self.levels):
            drawn = rng.random(items, np.float32)
            codes[:, level] = (drawn**3 if self.skewed else drawn) * self.size
        # A float below one may become one codebook's size in the product.
        return np.minimum(codes, self.size - 1)


@dataclass(frozen=True, slots=True)
class State:
    """A step in the trie's own terms."""

    step: Step
    beams: Beams


def measure(
    layout: Layout,
    items: int,
    widths: Sequence[int],
    searches: int,
    vocabulary: int,
    oracle: bool = True,
) -> list[dict[str, Any]]:
    """A JSON object for each width and contestant. Raises `Disagreement`."""
    sort_s, codes = timed(partial(_in_order, layout.draw(items)))
    build_s, built = timed(lambda: Trie.build(codes))
    dictionary_s, dictionary = timed(lambda: PrefixDictionary(codes))
    walks = {width: _walks(built, layout.size, width, searches + 1) for width in widths}
    held = {
        TRIE: (build_s, built.nbytes),
        DICTIONARY: (dictionary_s, dictionary.nbytes),
    }
    rows = []
    for width in widths:
        rows += _contest(built, dictionary, layout, walks[width], searches, vocabulary)
    if oracle:
        # Not beside the dictionary: ten million items of either fill gigabytes.
        del dictionary
        gc.collect()
        oracle_s, sets = timed(lambda: PrefixSets(codes))
        held[ORACLE] = (oracle_s, sets.nbytes)
        for width in widths:
            rows.append(_consult(built, sets, walks[width]))
    for row in rows:
        seconds, size = held.get(row["contestant"], (None, None))
        row |= {
            "layout": str(layout),
            "items": items,
            "sort_seconds": sort_s,
            "build_seconds": seconds,
            "bytes_per_item": None if size is None else size / items,
        }
    return rows


def _in_order(codes: Codes) -> Codes:
    return codes[sort_order(codes)]


def _walks(trie: Trie, codes: int, width: int, searches: int) -> list[State]:
    """The steps of some searches, one search behind the other."""
    generator = torch.Generator().manual_seed(20)
    everything = EligibilityBatch([None], trie.n_items)
    states = []
    for _ in range(searches):
        beams = Beams.start(1, torch.device("cpu"))
        for depth in range(trie.depth):
            shape = (len(beams), codes)
            logp = torch.randn(shape, generator=generator).log_softmax(dim=1)
            first, _ = trie.rows(depth, beams.node)
            prefixes = trie.codes[first.long(), :depth].long()
            states.append(State(Step(depth, prefixes, beams.score, logp, width), beams))
            row = torch.arange(len(beams))
            beams = advance(trie, depth, beams, logp, row, [width], everything)
    return states


def _contest(
    trie: Trie,
    dictionary: PrefixDictionary,
    layout: Layout,
    states: Sequence[State],
    searches: int,
    vocabulary: int,
) -> list[dict[str, Any]]:
    """All contestants but the oracle on the same steps, one search as the warm-up."""
    depth, width = trie.depth, states[0].step.width
    processor = LogitsProcessor(dictionary, [layout.size] * depth, vocabulary)
    everything = EligibilityBatch([None], trie.n_items)

    def ours(state: State) -> tuple[float, Best]:
        step, beams = state.step, state.beams
        row = torch.arange(len(step.logp))
        seconds, found = _turn(
            lambda: advance(trie, step.depth, beams, step.logp, row, [width], everything)
        )
        return seconds, named(step, (found.score, found.parent, found.code))

    def children(state: State) -> tuple[float, int]:
        node = state.beams.node
        seconds, below = _turn(lambda: trie.children(state.step.depth, node))
        return seconds, len(below.node)

    def bare(state: State) -> tuple[float, None]:
        count = len(trie.children(state.step.depth, state.beams.node).node)
        score, gain = torch.randn(count), torch.randn(count)
        return _turn(lambda: (score + gain).topk(min(width, count)))[0], None

    def theirs(state: State) -> tuple[float, Best]:
        seconds, found = _turn(lambda: dictionary.step(state.step))
        return seconds, named(state.step, found)

    def generate(state: State) -> tuple[float, Best]:
        prepared = processor.prepare(state.step)
        seconds, found = _turn(lambda: processor.step_prepared(prepared))
        return seconds, named(state.step, found)

    contestants: dict[str, Callable[[State], tuple[float, Any]]] = {
        TRIE: ours,
        CHILDREN: children,
        FLOOR: bare,
        DICTIONARY: theirs,
        PROCESSOR: generate,
    }
    turns = {name: _on(states, contestant) for name, contestant in contestants.items()}
    title = f"{trie.n_items:,} items, {layout}, {width} beams"
    taken = alternate(turns, searches * depth, warm_up=depth, title=title)
    for name in (DICTIONARY, PROCESSOR):
        for (_, mine), (_, yours) in zip(taken[TRIE], taken[name], strict=True):
            compare(name, yours, mine)
    floors = [seconds for seconds, _ in taken[FLOOR]]
    counts = [count for _, count in taken[CHILDREN]]
    reference = _means([seconds for seconds, _ in taken[TRIE]], depth)
    least = Spread.of(_means(floors, depth)).median
    rows = []
    for name in (TRIE, CHILDREN, DICTIONARY, PROCESSOR):
        seconds = [value for value, _ in taken[name]]
        spread = Spread.of(_means(seconds, depth))
        ratios = [a / b for a, b in zip(_means(seconds, depth), reference, strict=True)]
        rows.append(
            {
                "beams": width,
                "contestant": name,
                "microseconds": spread.scaled(1e6).json(),
                "over_trie": Spread.of(ratios).json(),
                "floor_microseconds": least * 1e6,
                "time_over_floor": spread.median / least,
                "levels": [
                    {
                        "children": float(np.median(counts[level::depth])),
                        "microseconds": float(np.median(seconds[level::depth])) * 1e6,
                    }
                    for level in range(depth)
                ],
            }
        )
    return rows


def _consult(trie: Trie, sets: PrefixSets, states: Sequence[State]) -> dict[str, Any]:
    """The oracle on the steps of the first search; its answers are compared with the trie's."""
    everything, taken = EligibilityBatch([None], trie.n_items), []
    for state in states[: _ORACLE_WALKS * trie.depth]:
        step = state.step
        seconds, found = timed(partial(sets.step, step))
        row = torch.arange(len(step.logp))
        ours = advance(trie, step.depth, state.beams, step.logp, row, [step.width], everything)
        compare(ORACLE, named(step, found), named(step, (ours.score, ours.parent, ours.code)))
        taken.append(seconds)
    spread = Spread.of(_means(taken, trie.depth))
    return {
        "beams": states[0].step.width,
        "contestant": ORACLE,
        "microseconds": spread.scaled(1e6).json(),
    }


def compare(name: str, found: Best, expected: Best) -> None:
    """Raises `Disagreement` unless both are the same prefixes with the same scores."""
    theirs, ours = dict(found), dict(expected)
    if theirs.keys() != ours.keys():
        only = sorted(theirs.keys() ^ ours.keys())[:3]
        raise Disagreement(
            f"{name}: {len(theirs)} prefixes, the trie {len(ours)}; not both: {only}"
        )
    apart = max((abs(theirs[prefix] - score) for prefix, score in ours.items()), default=0.0)
    if not apart < 1e-4:
        raise Disagreement(f"{name}: scores differ from the trie's by {apart}")


def _on(
    states: Sequence[State], contestant: Callable[[State], tuple[float, Any]]
) -> Callable[[int], tuple[float, Any]]:
    return lambda number: contestant(states[number])


def _turn(work: Callable[[], Any]) -> tuple[float, Any]:
    """The median seconds of a call, of as many as fit a turn; and what the last one gave.

    The first call counts only where it fills the turn by itself.
    """
    with torch.inference_mode():
        first, value = timed(work)
        if first >= _TURN_S:
            return first, value
        taken: list[float] = []
        while not taken or sum(taken) < _TURN_S:
            seconds, value = timed(work)
            taken.append(seconds)
    return median(taken), value


def _means(seconds: Sequence[float], depth: int) -> list[float]:
    """The mean step of each search."""
    return [sum(seconds[start : start + depth]) / depth for start in range(0, len(seconds), depth)]
