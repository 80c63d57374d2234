"""The reference answers a batch as it answers each prompt alone."""

import numpy as np

from bench.hugging_face import HuggingFaceSearch
from model_store.bundle import Bundle
from service.prompt import PromptBuilder
from tests.engine.reference import assert_same


def test_a_batch_of_prompts_of_different_lengths(bundle: Bundle) -> None:
    builder, rng = PromptBuilder(bundle), np.random.default_rng(3)
    lengths = (1, 12, 4, 7)
    prompts = [builder.build(rng.integers(200, size=n).tolist())[0] for n in lengths]
    assert len({len(prompt) for prompt in prompts}) == len(lengths)
    search = HuggingFaceSearch.of(bundle)
    found = search.search_batch(prompts, 9)
    assert len({tuple(codes for codes, _ in one) for one in found}) > 1
    for prompt, one in zip(prompts, found, strict=True):
        assert len(one) == 9
        assert_same(one, search.search(prompt, 9))
