"""Constrained beam search as one gets it today: `generate` with `prefix_allowed_tokens_fn`.

The reference for what an engine must find, and the contestant for how fast.
"""

from collections.abc import Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LogitsProcessor, LogitsProcessorList

from model_store.bundle import Bundle
from model_store.sid import END

Found = tuple[tuple[int, ...], float]
"""Codes and score of a SID."""

Tokens = tuple[int, ...]

_DEAD = -1e8
"""Hugging Face gives beams that stand for nothing a score of -1e9."""


class HuggingFaceSearch:
    """Beam search with `model` over the SIDs of `bundle`, a dictionary of prefixes its trie.

    A SID that ends early is filled with a token that no SID has, at no cost: `generate` knows
    beams of one length only.
    """

    def __init__(self, model: Any, bundle: Bundle) -> None:
        self._model = model
        self._depth = bundle.spec.depth
        self._sids = sid_tokens(bundle)
        self._fill = _unused_token(model, self._sids)
        self._following = _following(self._sids, self._fill)

    @classmethod
    def of(
        cls, bundle: Bundle, *, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> "HuggingFaceSearch":
        """With the bundle's own model."""
        model = AutoModelForCausalLM.from_pretrained(bundle.model_path, dtype=dtype)
        return cls(model.to(device).eval(), bundle)

    def search(self, prompt_ids: Sequence[int], beams: int) -> list[Found]:
        """The best SIDs with their scores, best first."""
        return self.search_batch([prompt_ids], beams)[0]

    def search_batch(self, prompts: Sequence[Sequence[int]], beams: int) -> list[list[Found]]:
        """The best SIDs of each prompt, all in one call of `generate`."""
        n = max(map(len, prompts))
        # Padding stands on the left, so that all continue at the same place.
        lacking = [n - len(prompt) for prompt in prompts]
        ids = [[self._fill] * k + list(p) for k, p in zip(lacking, prompts, strict=True)]
        mask = [[0] * k + [1] * (n - k) for k in lacking]

        def allowed(_: int, ids: Tensor) -> list[int]:
            written = ids[n:].tolist()
            return [self._fill] if self._fill in written else self._following[tuple(written)]

        output = self._model.generate(
            torch.tensor(ids, device=self._model.device),
            attention_mask=torch.tensor(mask, device=self._model.device),
            num_beams=beams,
            num_return_sequences=beams,
            max_new_tokens=self._depth,
            do_sample=False,
            length_penalty=0.0,
            pad_token_id=self._fill,
            prefix_allowed_tokens_fn=allowed,
            logits_processor=LogitsProcessorList([_FreeFill(self._fill)]),
            return_dict_in_generate=True,
            output_scores=True,
        )
        sequences, scores = output.sequences[:, n:].tolist(), output.sequences_scores.tolist()
        found = [
            (self._sids[tuple(token for token in sequence if token != self._fill)], score)
            if score > _DEAD
            else None
            for sequence, score in zip(sequences, scores, strict=True)
        ]
        return [
            [one for one in found[start : start + beams] if one is not None]
            for start in range(0, len(found), beams)
        ]


def sid_tokens(bundle: Bundle) -> dict[Tokens, tuple[int, ...]]:
    """The codes of each distinct SID of a bundle, by its vocabulary ids."""
    codes = {tuple(c for c in row if c != END) for row in bundle.catalogue.codes.tolist()}
    return {
        tuple(int(bundle.level_tokens[level][code]) for level, code in enumerate(sid)): sid
        for sid in codes
    }


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
