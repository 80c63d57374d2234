"""Prompts that begin alike: the same beams as computed anew, and less to compute."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_store.bundle import Bundle
from service.engine import Query
from service.engine.torch.engine import TorchEngine
from service.engine.torch.prefixes import NOTHING, PrefixCache
from tests.engine.reference import assert_same, beams_of
from tests.tiny import ARCHITECTURES, make_bundle, random_items

ITEMS = random_items(300, (8, 8, 8), seed=6, extra_share=0.3)
HEAD, ITEM, TAIL = 20, 4, 7


@pytest.fixture(scope="module", params=ARCHITECTURES)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    architecture: str = request.param
    folder = tmp_path_factory.mktemp("prefixes")
    return make_bundle(folder, ITEMS, architecture=architecture, name=architecture)


def growing(bundle: Bundle, users: int, visits: int, *, seed: int = 0) -> list[list[list[int]]]:
    """Per visit a prompt of each user: all begin alike, each history grows, all end alike."""
    rng = np.random.default_rng(seed)
    vocabulary = bundle.tokenizer.get_vocab_size()
    head = rng.integers(1, vocabulary, HEAD).tolist()
    tail = rng.integers(1, vocabulary, TAIL).tolist()
    histories: list[list[int]] = [[] for _ in range(users)]
    prompts = []
    for _ in range(visits):
        for history in histories:
            history += rng.integers(1, vocabulary, ITEM * int(rng.integers(1, 4))).tolist()
        prompts.append([head + history + tail for history in histories])
    return prompts


@pytest.mark.parametrize("room", [256 << 20, 100_000])
def test_the_same_beams_as_without(bundle: Bundle, room: int) -> None:
    visits = growing(bundle, users=3, visits=6)
    with (
        TorchEngine(bundle, device="cpu", prefix_bytes=room) as engine,
        TorchEngine(bundle, device="cpu", prefix_bytes=0) as anew,
    ):
        for prompts in [*visits, visits[0], visits[-1]]:
            queries = [Query(prompt, 12) for prompt in prompts]
            for found, expected in zip(
                engine.search_batch(queries), anew.search_batch(queries), strict=True
            ):
                assert_same(beams_of(found), beams_of(expected))
        assert engine.stats().cached_tokens > 0
        assert anew.stats().cached_tokens == 0


def test_what_a_user_had_before_is_not_computed_again(bundle: Bundle) -> None:
    first, second = ([*visit[0]] for visit in growing(bundle, users=1, visits=2))
    with TorchEngine(bundle, device="cpu") as engine:
        engine.search_batch([Query(first, 5)])
        assert engine.stats().cached_tokens == 0
        engine.search_batch([Query(second, 5)])
        stats = engine.stats()
        same = next(
            i for i, pair in enumerate(zip(first, second, strict=False)) if len({*pair}) > 1
        )
        assert (stats.prompt_tokens, stats.cached_tokens) == (len(second), same)
        assert same >= len(first) - TAIL
        engine.search_batch([Query(second, 5)])
        assert engine.stats().cached_tokens == len(second) - 1


def kept(prompt: Sequence[int]) -> list[torch.Tensor]:
    """Two layers whose keys are the tokens themselves."""
    row = torch.tensor(prompt, dtype=torch.float32)
    return [row.expand(2, -1)[..., None].contiguous()] * 2


BYTES = 2 * 2 * 4
"""Of one token in `kept`."""


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60), st.integers(0, 9)), max_size=30))
def test_a_prefix_is_one_that_was_kept(prompts: list[tuple[int, int, int]]) -> None:
    cache = PrefixCache(200 * BYTES)
    seen: list[list[int]] = []
    for stem, length, tail in prompts:
        prompt = [stem] * length + [100 + tail] * tail
        if not prompt:
            continue
        prefix = cache.find(prompt)
        assert prefix.tokens < len(prompt)
        if prefix.tokens:
            assert any(prompt[: prefix.tokens] == other[: prefix.tokens] for other in seen)
            assert prefix.kept is not None
            assert prefix.kept[1, 0, : prefix.tokens, 0].tolist() == prompt[: prefix.tokens]
        cache.keep(prompt, kept(prompt))
        seen.append(prompt)
        held = [len(entry.ids) for entry in cache._entries.values()]
        assert sum(held) * BYTES == cache._bytes <= 200 * BYTES


def test_what_has_not_been_asked_for_longest_goes_first() -> None:
    cache = PrefixCache(100 * BYTES)
    prompts = [[stem] * 30 + [9] for stem in range(3)]
    for prompt in prompts:
        cache.keep(prompt, kept(prompt))
    assert cache.find(prompts[0]).tokens == 30  # asked again, as it is
    cache.keep([5] * 31, kept([5] * 31))
    assert cache.find(prompts[1]) == NOTHING
    assert [cache.find(prompts[i]).tokens for i in (0, 2)] == [30, 30]


def test_a_prompt_that_has_grown_takes_the_place_of_the_old_one() -> None:
    cache = PrefixCache(100 * BYTES)
    old, other = [1] * 30 + [9], [2] * 40
    for prompt in (old, other):
        cache.keep(prompt, kept(prompt))
    new = [1] * 35 + [9]
    assert cache.find(new).tokens == 30
    cache.keep(new, kept(new))
    assert cache.find(other).tokens == 39
    assert cache.find(new).tokens == 35


def test_nothing_is_kept_without_room() -> None:
    cache = PrefixCache(0)
    cache.keep([1] * 40, kept([1] * 40))
    assert cache.find([1] * 40) is NOTHING
