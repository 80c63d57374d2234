"""What an engine must find, computed the slow and obvious way with Hugging Face.

The functions take a model from `AutoModelForCausalLM.from_pretrained(bundle.model_path,
dtype=torch.float32)`; but for `considered` they
return (codes, score) pairs, best first.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bench.hugging_face import Found, HuggingFaceSearch, sid_tokens
from model_store.bundle import Bundle
from model_store.sid.spec import END
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


@dataclass(frozen=True, slots=True)
class Considered:
    """A prefix that one level of a search has to choose from, its codes `END` and all."""

    path: tuple[int, ...]
    gain: float
    score: float
    eligible_items: int


@torch.inference_mode()
def considered(
    model: Any, bundle: Bundle, prompt_ids: Sequence[int], width: int, rows: Collection[int]
) -> list[list[Considered]]:
    """What each level of a search among the items in `rows` considers, best first. The model reads
    each prefix from its first token on."""
    codes = [tuple(sid) for sid in bundle.catalogue.codes.tolist()]
    beam: dict[tuple[int, ...], float] = {(): 0.0}
    levels = []
    for depth in range(bundle.spec.depth):
        items = Counter(codes[row][: depth + 1] for row in rows)
        tokens = [[int(bundle.level_tokens[i][c]) for i, c in enumerate(path)] for path in beam]
        asked = torch.tensor([[*prompt_ids, *path] for path in tokens]).reshape(len(beam), -1)
        logits = model(asked, logits_to_keep=1).logits[:, -1] if beam else torch.empty(0, 1)
        found = []
        for (path, before), logp in zip(beam.items(), logits.log_softmax(dim=-1), strict=True):
            for longer in {sid[: depth + 1] for sid in codes if sid[:depth] == path}:
                ends = longer[-1] == END
                gain = 0.0 if ends else float(logp[int(bundle.level_tokens[depth][longer[-1]])])
                found.append(Considered(longer, gain, before + gain, items[longer]))
        found.sort(key=lambda one: (-one.score, one.path))
        levels.append(found)
        beam = {one.path: one.score for one in [f for f in found if f.eligible_items][:width]}
    return levels
