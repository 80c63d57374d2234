"""The floor's arithmetic, counted by hand on a shape small enough for that."""

import pytest
import torch

from bench import floor as module
from bench import machine
from bench.floor import Phase, Product, Sizes, floor, plan, rows_at
from model_store.bundle import Bundle

# Two layers of 8, with 2 heads of 4 and one KV head (keys and values: 2 · 4), inner 16, 32 tokens.
SIZES = Sizes(layers=2, hidden=8, inner=16, wide=8, narrow=8, vocabulary=32)

# q, k, v: 8 by 16; out: 8 by 8; gate and up: 8 by 32; down: 16 by 8.
LAYER = 8 * 16 + 8 * 8 + 8 * 32 + 16 * 8
HEAD = 8 * 32


def test_a_prompt() -> None:
    """Two prompts of 3 and 5 tokens. The first layer runs all of it, the second only keys and
    values of 8 tokens and the rest of 2."""
    [prompt] = plan(SIZES, [3, 5], [])
    first, second = 8 * LAYER, 8 * (8 * 8) + 2 * (LAYER - 8 * 8)
    # First layer: 1+2+3 and 1+2+3+4+5 pairs of positions; second: 3 and 5. A pair costs a
    # multiplication for each of the 8 numbers of a query, and again for each of the values.
    pairs = (6 + 15) + (3 + 5)
    assert prompt.operations == 2 * (first + second + 2 * HEAD) + 2 * 2 * 8 * pairs
    assert prompt.weights == 2 * LAYER + HEAD
    assert prompt.cache == 2 * 8 * 8  # layers · tokens · keys and values


def test_levels() -> None:
    """Six beams of two queries behind 3 and 5 tokens, then five; each sees its prompt (4 tokens
    in the mean) and its own tokens so far."""
    _, second, third = plan(SIZES, [3, 5], [6, 5])
    assert second.operations == 2 * 6 * (2 * LAYER + HEAD) + 2 * 2 * 8 * 2 * 6 * (4 + 1)
    assert third.operations == 2 * 5 * (2 * LAYER + HEAD) + 2 * 2 * 8 * 2 * 5 * (4 + 2)
    assert second.weights == 2 * LAYER + HEAD
    assert (second.cache, third.cache) == (2 * (8 + 6) * 8, 2 * (8 + 10) * 8)


def test_a_level_that_no_beam_runs_is_free() -> None:
    assert plan(SIZES, [3], [0])[1] == Phase("level 2", (), 0, 0, 0)


def test_sizes_are_those_of_the_model(bundle: Bundle) -> None:
    """All of the weights file but what is no matrix of a layer: norms and biases."""
    from safetensors.torch import load_file

    tensors = load_file(bundle.model_path / "model.safetensors")
    matrices = sum(tensor.numel() for tensor in tensors.values() if tensor.ndim == 2)
    assert Sizes.load(bundle.model_path).weights == matrices  # the head is the embedding


def test_the_slower_of_arithmetic_and_memory_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "multiply_rate", lambda *_: 100.0)
    phase = Phase("p", (Product(2, 3, 4, times=5),), attention=60, weights=10, cache=5)
    for read_rate, seconds in ((100.0, 3.0), (10.0, 6.0)):
        monkeypatch.setattr(module, "read_rate", lambda *_, rate=read_rate: rate)
        [found] = floor([phase], "cpu", torch.float32)
        assert found.arithmetic == (2 * 2 * 3 * 4 * 5 + 60) / 100
        assert found.memory == 4 * 15 / read_rate
        assert found.seconds == seconds


def test_only_beams_that_grow_are_counted(bundle: Bundle) -> None:
    answer = [(1, 2, 3), (1, 2, 3, 0), (1, 2, 3, 1), (4, 5, 5, 0)]
    assert rows_at(bundle.trie, 1, 20, answer) == 6  # no more nodes than codes
    assert rows_at(bundle.trie, 1, 4, answer) == 4
    assert rows_at(bundle.trie, 3, 20, answer) == 2


def test_rates_are_the_best_that_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever disturbs a measurement cannot make a rate lower than one that is known: not that of
    the same product, and not that of one with more rows."""
    tried: list[int] = []

    def rate(rows: int, *_: object) -> float:
        tried.append(rows)
        return speeds.pop(0)

    monkeypatch.setattr(machine, "_try_multiplying", rate)
    monkeypatch.setattr(machine, "_multiplying", {})
    speeds = [5.0, 3.0, 4.0, 2.0, 1.0, 9.0]

    def measured(rows: int) -> float:
        return machine.multiply_rate(rows, 7, 8, "cpu", torch.float32)

    assert [measured(20), measured(20), measured(10)] == [5, 5, 4]
    assert (measured(10**6), set(tried[3:])) == (5, {256, machine.MOST_ROWS})
    assert measured(30) == 9


def test_rates_are_measured() -> None:
    """Whatever this machine is, it is no slower than a million and no faster than 10^17."""
    assert 1e6 < machine.multiply_rate(64, 64, 64, "cpu", torch.float32) < 1e17
    assert 1e6 < machine.read_rate(1 << 20, "cpu") < 1e17
