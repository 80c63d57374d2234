"""Every engine writes what Hugging Face's greedy `generate` writes, token for token."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from model_store.bundle import Bundle
from service.engine import Engine, Query
from service.errors import EngineError
from tests.conformance.agreement import assert_agree
from tests.conformance.test_demo import prompts

LONGEST = 24


@pytest.fixture(scope="module")
def asked(demo: Bundle) -> list[list[int]]:
    """Prompts after which the model goes on with words, and such after which it soon ends."""
    texts = ["Quillon", "轻量化无线鼠标 ", "标题:", "p", "4K Portable Display, 32 inch"]
    words = [demo.tokenizer.encode(text).ids for text in texts]
    complete = [
        [*prompt[-100:], *(int(demo.level_tokens[i][code]) for i, code in enumerate(codes))]
        for prompt, codes in zip(prompts(demo, 3, seed=1), demo.catalogue.codes[:3], strict=True)
    ]
    return words + complete


@pytest.fixture(scope="module")
def hugging_face(demo: Bundle) -> Any:
    return AutoModelForCausalLM.from_pretrained(demo.model_path, dtype=torch.float32).eval()


@torch.inference_mode()
def greedy(model: Any, prompt: Sequence[int], ends: frozenset[int]) -> list[int]:
    ids = torch.tensor([prompt])
    written = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=LONGEST,
        do_sample=False,
        pad_token_id=0,
    )[0, len(prompt) :].tolist()
    return [token for token in written if token not in ends]


def test_the_same_tokens_alone_and_in_company(
    engine: Engine, demo: Bundle, asked: list[list[int]], hugging_face: Any
) -> None:
    right = [greedy(hugging_face, prompt, demo.end_tokens) for prompt in asked]
    assert demo.end_tokens
    assert {len(text) < LONGEST for text in right} == {True, False}
    searches = [Query(prompt, 20) for prompt in prompts(demo, 6, seed=2)]

    async def everything() -> tuple[list[list[int]], Any]:
        alone = await engine.generate(asked[0], LONGEST)
        together = asyncio.gather(*(engine.generate(prompt, LONGEST) for prompt in asked))
        found = await asyncio.gather(*(engine.search(query) for query in searches))
        return [alone, *await together], found

    [alone, *together], found = asyncio.run(everything())
    assert alone == right[0]
    assert together == right
    for beams, query in zip(found, searches, strict=True):
        assert_agree(beams, engine.search_batch([query])[0])


def test_a_caller_that_goes_leaves_the_others_alone(engine: Engine, asked: list[list[int]]) -> None:
    async def one_goes() -> tuple[list[int], list[int]]:
        gone = asyncio.create_task(engine.generate(asked[0], 200))
        kept = asyncio.create_task(engine.generate(asked[1], LONGEST))
        await asyncio.sleep(0)  # both have begun
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        return await kept, await engine.generate(asked[1], LONGEST)

    kept, again = asyncio.run(one_goes())
    assert kept == again


def test_what_does_not_fit_is_refused(engine: Engine) -> None:
    for prompt, tokens in (([], 5), ([1], 0), ([1] * 10, engine.max_length - 9)):
        with pytest.raises(EngineError, match="do not fit"):
            asyncio.run(engine.generate(prompt, tokens))
    fits = asyncio.run(engine.generate([1] * (engine.max_length - 2), 2))
    assert len(fits) <= 2
