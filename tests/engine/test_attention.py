"""All prompts at once, as on a GPU, against a prompt after the other, as on a CPU."""

import pytest
import torch
from torch import Tensor

from service.engine.torch.attention import OneByOne, Together, attention, fits
from service.engine.torch.forward import Cache
from service.engine.torch.prefixes import NOTHING, Prefix

HEADS, KV, SIZE, LAYERS, ROOM = 6, 2, 8, 2, 5


@pytest.mark.parametrize(
    ("lengths", "starts"),
    [
        ([7, 1, 12], [0, 0, 0]),
        ([7, 9, 12], [6, 0, 4]),  # all but the last token are known; nothing is; some are
        ([5, 5], [4, 4]),
        ([3], [0]),
    ],
)
def test_together_is_one_by_one(lengths: list[int], starts: list[int]) -> None:
    torch.manual_seed(5)
    run = [n - start for n, start in zip(lengths, starts, strict=True)]
    known = [
        Prefix(start, torch.randn(LAYERS, 2 * KV, start + 2, SIZE)) if start else NOTHING
        for start in starts
    ]
    q, kv = torch.randn(sum(run), HEADS, SIZE), torch.randn(sum(run), 2 * KV, SIZE)
    position = torch.cat([torch.arange(at, n) for at, n in zip(starts, lengths, strict=True)])
    last = torch.tensor(run).cumsum(0) - 1
    found: list[list[Tensor]] = []
    for kind in (OneByOne, Together):
        cache = Cache.empty(LAYERS, KV, SIZE, lengths, ROOM, torch.zeros(0))
        cache.put(known)
        attend = attention(cache, starts, run, position, HEADS // KV)
        assert isinstance(attend, OneByOne)  # on a CPU
        if kind is Together:
            attend = Together(cache, starts, run, position, HEADS // KV)
        mixed = attend(cache.layers[0], q, kv)
        of_last = attend.of_last(cache.layers[1], q[last], kv)
        assert mixed.shape == (sum(run), HEADS * SIZE)
        assert of_last.shape == (len(run), HEADS * SIZE)
        found.append([mixed, of_last, *cache.layers])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_long_prompt_among_many_short_ones_is_not_padded_with_them() -> None:
    assert not fits([5], 5)
    assert fits([512] * 64, 512)
    assert fits([1] * 60 + [4000], 4096) is False
    assert fits([1] * 60 + [200], 4096)  # all but these were known
