"""The least time in which a machine could do what the search asks for.

The search in question: one pass over the prompts, of whose last layer only the last positions need
more than keys and values; then one pass a level over the beams that can still grow; behind each
pass logits over the whole vocabulary. A phase can be faster neither than its operations over the
measured rate of its own matrix products, nor than its bytes (each weight once a pass, the prompts'
keys and values once a query) over the measured rate of reading as much. The larger of the two is
its floor. Norms, activations, softmax, trie and Python are free.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.machine import multiply_rate, read_rate
from model_store.sid import Trie


@dataclass(frozen=True, slots=True)
class Sizes:
    """What decides the operations of a Llama-family model.

    wide:   numbers in the queries of one position, heads times head size
    narrow: numbers in its keys and values together
    """

    layers: int
    hidden: int
    inner: int
    wide: int
    narrow: int
    vocabulary: int

    @classmethod
    def load(cls, folder: Path) -> "Sizes":
        """Reads `folder/config.json`."""
        raw = json.loads((folder / "config.json").read_text())
        heads = raw["num_attention_heads"]
        head = raw.get("head_dim") or raw["hidden_size"] // heads
        return cls(
            layers=raw["num_hidden_layers"],
            hidden=raw["hidden_size"],
            inner=raw["intermediate_size"],
            wide=heads * head,
            narrow=2 * (raw.get("num_key_value_heads") or heads) * head,
            vocabulary=raw["vocab_size"],
        )

    @property
    def weights(self) -> int:
        """Numbers that a pass reads: all matrices of all layers, and the head."""
        layer = self.hidden * (2 * self.wide + self.narrow + 3 * self.inner)
        return self.layers * layer + self.vocabulary * self.hidden


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix product (rows, inner) by (inner, columns), done `times` times."""

    rows: int
    inner: int
    columns: int
    times: int = 1

    @property
    def operations(self) -> int:
        return 2 * self.rows * self.inner * self.columns * self.times


@dataclass(frozen=True, slots=True)
class Phase:
    """One pass of the model and the logits behind it.

    attention: operations of the products within attention
    weights:   numbers in the matrices, each read once
    cache:     numbers of keys and values read and written
    """

    name: str
    products: tuple[Product, ...]
    attention: int
    weights: int
    cache: int

    @property
    def operations(self) -> int:
        return sum(product.operations for product in self.products) + self.attention


@dataclass(frozen=True, slots=True)
class Floor:
    """Seconds of one phase."""

    name: str
    arithmetic: float
    memory: float

    @property
    def seconds(self) -> float:
        return max(self.arithmetic, self.memory)


def plan(sizes: Sizes, tokens: Sequence[int], rows: Sequence[int]) -> list[Phase]:
    """The phases of a batch of prompts with `tokens` (Q,) tokens; `rows` (levels - 1,) are the
    beams of all queries together that run at each level but the first."""
    return [_prompt(sizes, tokens)] + [
        _level(sizes, tokens, count, step) for step, count in enumerate(rows, start=1)
    ]


def floor(phases: Sequence[Phase], device: str, dtype: torch.dtype) -> list[Floor]:
    """What each phase takes at least on this machine, measured now."""
    size = torch.empty((), dtype=dtype).element_size()

    shapes = {(p.rows, p.inner, p.columns) for phase in phases for p in phase.products}
    rates = {shape: multiply_rate(*shape, device, dtype) for shape in sorted(shapes)}
    reading = read_rate(size * max(phase.weights + phase.cache for phase in phases), device)

    def seconds(product: Product) -> float:
        return product.operations / rates[product.rows, product.inner, product.columns]

    # Attention has no shape of its own here: it gets the best rate of all.
    return [
        Floor(
            phase.name,
            sum(map(seconds, phase.products)) + phase.attention / max(rates.values()),
            size * (phase.weights + phase.cache) / reading,
        )
        for phase in phases
    ]


def rows_at(trie: Trie, depth: int, beams: int, answer: Sequence[Sequence[int]]) -> int:
    """Beams of one query that the pass for the level behind `depth` codes must run.

    Where SIDs may have ended by then, only those count that the answer (the codes of the SIDs
    found) proves to have grown.
    """
    if not trie.has_end[depth]:
        return min(beams, trie.n_nodes(depth))
    return len({tuple(codes[:depth]) for codes in answer if len(codes) > depth})


def _prompt(sizes: Sizes, tokens: Sequence[int]) -> Phase:
    n, queries, body = sum(tokens), len(tokens), sizes.layers - 1
    hidden, inner, wide, narrow = sizes.hidden, sizes.inner, sizes.wide, sizes.narrow
    products = (
        Product(n, hidden, wide + narrow, body),
        Product(n, wide, hidden, body),
        Product(n, hidden, 2 * inner, body),
        Product(n, inner, hidden, body),
        # The last layer: keys and values of all positions, the rest of the last ones.
        Product(n, hidden, narrow),
        Product(queries, hidden, wide),
        Product(queries, wide, hidden),
        Product(queries, hidden, 2 * inner),
        Product(queries, inner, hidden),
        Product(queries, hidden, sizes.vocabulary),
    )
    # A prompt's token attends to itself and to those before it, in two products.
    pairs = body * sum(count * (count + 1) // 2 for count in tokens) + n
    used = tuple(product for product in products if product.times)
    return Phase("prompt", used, 4 * wide * pairs, sizes.weights, sizes.layers * n * narrow)


def _level(sizes: Sizes, tokens: Sequence[int], rows: int, step: int) -> Phase:
    """`step` counts the beams' own tokens, the one that runs included."""
    name = f"level {step + 1}"
    if rows == 0:
        return Phase(name, (), 0, 0, 0)
    n, layers = sum(tokens), sizes.layers
    hidden, inner, wide, narrow = sizes.hidden, sizes.inner, sizes.wide, sizes.narrow
    products = (
        Product(rows, hidden, wide + narrow, layers),
        Product(rows, wide, hidden, layers),
        Product(rows, hidden, 2 * inner, layers),
        Product(rows, inner, hidden, layers),
        Product(rows, hidden, sizes.vocabulary),
    )
    pairs = layers * round(rows * (n / len(tokens) + step))
    cache = layers * (n + step * rows) * narrow
    return Phase(name, products, 4 * wide * pairs, sizes.weights, cache)
