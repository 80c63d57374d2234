"""What an engine must find, computed the slow and obvious way with Hugging Face.

Both functions take a model from `AutoModelForCausalLM.from_pretrained(bundle.model_path,
dtype=torch.float32)` and return (codes, score) pairs, best first.
"""

from collections.abc import Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from model_store.bundle import Bundle
from model_store.sid import END
from service.engine import Beam

Found = tuple[tuple[int, ...], float]
Tokens = tuple[int, ...]

_DEAD = -1e8
"""Hugging Face gives beams that stand for nothing a score of -1e9."""


def beams_of(found: Sequence[Beam]) -> list[Found]:
    """An engine's answer in the form of this module."""
    return [(beam.codes, beam.score) for beam in found]


def assert_same(found: Sequence[Found], expected: Sequence[Found], tolerance: float = 1e-4) -> None:
    """The same SIDs in the same order, with the same scores but for `tolerance`."""
    assert [codes for codes, _ in found] == [codes for codes, _ in expected]
    scores, right = (torch.tensor([score for _, score in side]) for side in (found, expected))
    torch.testing.assert_close(scores, right, rtol=0, atol=tolerance)


def sid_tokens(bundle: Bundle) -> dict[Tokens, tuple[int, ...]]:
    """The codes of each distinct SID of a bundle, by its vocabulary ids."""
    codes = {tuple(c for c in row if c != END) for row in bundle.catalogue.codes.tolist()}
    return {
        tuple(int(bundle.level_tokens[level][code]) for level, code in enumerate(sid)): sid
        for sid in codes
    }


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
    """The best SIDs by `generate` with two or more beams over the bundle's SIDs alone.

    A SID that ends early is filled with a token that no SID has, at no cost: `generate` knows
    beams of one length only.
    """
    sids = sid_tokens(bundle)
    fill = _unused_token(model, sids)
    following = _following(sids, fill)
    n = len(prompt_ids)

    def allowed(_: int, ids: Tensor) -> list[int]:
        written = ids[n:].tolist()
        return [fill] if fill in written else following[tuple(written)]

    output = model.generate(
        torch.tensor([list(prompt_ids)]),
        attention_mask=torch.ones(1, n, dtype=torch.long),
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=bundle.spec.depth,
        do_sample=False,
        length_penalty=0.0,
        pad_token_id=fill,
        prefix_allowed_tokens_fn=allowed,
        logits_processor=LogitsProcessorList([_FreeFill(fill)]),
        return_dict_in_generate=True,
        output_scores=True,
    )
    sequences, scores = output.sequences[:, n:].tolist(), output.sequences_scores.tolist()
    return [
        (sids[tuple(token for token in sequence if token != fill)], score)
        for sequence, score in zip(sequences, scores, strict=True)
        if score > _DEAD
    ]


def _unused_token(model: Any, sids: dict[Tokens, tuple[int, ...]]) -> int:
    """A token of no SID, and not one at which `generate` stops."""
    ends = model.generation_config.eos_token_id
    used = {token for tokens in sids for token in tokens} | set(
        ends if isinstance(ends, list) else [ends]
    )
    return next(token for token in count() if token not in used)


def _following(sids: dict[Tokens, tuple[int, ...]], fill: int) -> dict[Tokens, list[int]]:
    """The tokens that may follow each prefix of a SID; `fill` follows a whole one."""
    following: dict[Tokens, set[int]] = {}
    for tokens in sids:
        for length, token in enumerate(tokens):
            following.setdefault(tokens[:length], set()).add(token)
        following.setdefault(tokens, set()).add(fill)
    return {prefix: sorted(tokens) for prefix, tokens in following.items()}


class _FreeFill(LogitsProcessor):  # type: ignore[misc]
    """Lets the filling token cost nothing where it is allowed."""

    def __init__(self, fill: int) -> None:
        self._fill = fill

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        free = scores.clone()
        free[:, self._fill] = torch.where(scores[:, self._fill] > -torch.inf, 0.0, -torch.inf)
        return free
