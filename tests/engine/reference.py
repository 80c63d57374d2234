"""What an engine must find, computed the slow and obvious way with Hugging Face.

Both functions take a model from `AutoModelForCausalLM.from_pretrained(bundle.model_path,
dtype=torch.float32)` and return (codes, score) pairs, best first.
"""

from collections.abc import Sequence
from typing import Any

import torch

from bench.hugging_face import Found, HuggingFaceSearch, sid_tokens
from model_store.bundle import Bundle
from service.engine import Beam
from service.engine.torch.native import kernels
from tests.system import missing


def require_kernels() -> None:
    """They are `missing` where no compiler built them."""
    if kernels() is None:
        missing("the native kernels were not built")


def beams_of(found: Sequence[Beam]) -> list[Found]:
    """An engine's answer in the form of this module."""
    return [(beam.codes, beam.score) for beam in found]


def assert_same(found: Sequence[Found], expected: Sequence[Found], tolerance: float = 1e-4) -> None:
    """The same SIDs in the same order, with the same scores but for `tolerance`."""
    assert [codes for codes, _ in found] == [codes for codes, _ in expected]
    scores, right = (torch.tensor([score for _, score in side]) for side in (found, expected))
    torch.testing.assert_close(scores, right, rtol=0, atol=tolerance)


@torch.inference_mode()
def every_score(model: Any, bundle: Bundle, prompt_ids: Sequence[int]) -> list[Found]:
    """All SIDs of a bundle, scored by teacher forcing: no search, so nothing can be missed."""
    sids = sid_tokens(bundle)
    longest = max(map(len, sids))
    rows = [[*prompt_ids, *tokens, *[0] * (longest - len(tokens))] for tokens in sids]
    logits = model(torch.tensor(rows)).logits[:, len(prompt_ids) - 1 :].float()
    logp = logits.log_softmax(dim=-1)
    found = [
        (sid, sum(float(logp[i, place, token]) for place, token in enumerate(tokens)))
        for i, (tokens, sid) in enumerate(sids.items())
    ]
    return sorted(found, key=lambda pair: (-pair[1], pair[0]))


def hugging_face_beams(
    model: Any, bundle: Bundle, prompt_ids: Sequence[int], beams: int
) -> list[Found]:
    """The best SIDs by `generate` with two or more beams over the bundle's SIDs alone."""
    return HuggingFaceSearch(model, bundle).search(prompt_ids, beams)
