"""Constraints as one writes them first: dictionaries and sets of tuples.

Each is built from sorted code matrices and takes one step of a beam search for one query.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model_store.sid import Codes

_AT_ONCE = 100_000

Prefix = tuple[int, ...]
Best = list[tuple[Prefix, float]]
"""Prefixes with their scores, in any order."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a step starts from: W beams after `depth` codes.

    prefixes: (W, depth) their codes
    score:    (W,) float32
    logp:     (W, codes) log-probabilities of the next code
    width:    how many continuations are kept
    """

    depth: int
    prefixes: Tensor
    score: Tensor
    logp: Tensor
    width: int


class Constraint(ABC):
    """Something that knows which SIDs are real."""

    @abstractmethod
    def step(self, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        """The best continuations: scores, beams continued, codes added, each (width,) or fewer."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes held, as `sys.getsizeof` counts them; the integers are shared, and free."""


class PrefixDictionary(Constraint):
    """What research code uses: from each prefix to the list of codes that may follow it, made
    into a mask beam by beam. As wide as the codebook here, which is the kind way."""

    def __init__(self, codes: Codes) -> None:
        self._following: dict[Prefix, list[int]] = {}
        for row in _rows(codes):
            for length, code in enumerate(row):
                following = self._following.setdefault(tuple(row[:length]), [])
                if not following or following[-1] != code:
                    following.append(code)

    def step(self, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        mask = torch.full_like(step.logp, -torch.inf)
        for i, prefix in enumerate(step.prefixes.tolist()):
            mask[i, self._following[tuple(prefix)]] = 0
        return _best(step.logp + mask + step.score[:, None], step.width)

    def following(self, prefix: Sequence[int]) -> list[int]:
        return self._following[tuple(prefix)]

    @property
    def nbytes(self) -> int:
        held = sum(
            sys.getsizeof(prefix) + sys.getsizeof(codes)
            for prefix, codes in self._following.items()
        )
        return held + sys.getsizeof(self._following)


class LogitsProcessor(Constraint):
    """The same dictionary through the class of Hugging Face that `prefix_allowed_tokens_fn` ends
    in: a mask over the whole vocabulary of a language model."""

    def __init__(self, dictionary: PrefixDictionary, sizes: Sequence[int], vocabulary: int) -> None:
        from transformers import PrefixConstrainedLogitsProcessor

        # The SIDs' tokens stand behind those of the language.
        self._first = [vocabulary + sum(sizes[:level]) for level in range(len(sizes))]
        self._sizes = sizes
        self._vocabulary = vocabulary + sum(sizes)
        self._dictionary = dictionary
        self._kind = PrefixConstrainedLogitsProcessor
        self._logp = torch.empty(0, self._vocabulary)

    def prepare(self, step: Step) -> tuple[Step, Tensor]:
        """The step in tokens of the vocabulary, and its log-probabilities over all of them. This
        is the model's work, not the constraint's."""
        beams = len(step.logp)
        if len(self._logp) != beams:
            self._logp = torch.randn(beams, self._vocabulary) - 20
        first = self._first[step.depth]
        self._logp[:, first : first + self._sizes[step.depth]] = step.logp
        return step, self._logp

    def step_prepared(self, prepared: tuple[Step, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        step, logp = prepared
        first = self._first[step.depth]

        def allowed(_: int, written: Tensor) -> list[int]:
            return [first + code for code in self._dictionary.following(written.tolist())]

        processor = self._kind(allowed, num_beams=len(logp))
        scores, beams, tokens = _best(
            processor(step.prefixes, logp) + step.score[:, None], step.width
        )
        return scores, beams, tokens - first

    def step(self, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        return self.step_prepared(self.prepare(step))

    @property
    def nbytes(self) -> int:
        return self._dictionary.nbytes


class PrefixSets(Constraint):
    """The oracle: every code of the codebook is tried, and kept if its prefix is in a set."""

    def __init__(self, codes: Codes) -> None:
        self._known = [
            set(map(tuple, _rows(codes[:, :length]))) for length in range(1, codes.shape[1] + 1)
        ]

    def step(self, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        known = self._known[step.depth]
        scores = torch.full_like(step.logp, -torch.inf)
        for i, prefix in enumerate(step.prefixes.tolist()):
            for code in range(scores.shape[1]):
                if (*prefix, code) in known:
                    scores[i, code] = step.logp[i, code] + step.score[i]
        return _best(scores, step.width)

    @property
    def nbytes(self) -> int:
        held = sum(sys.getsizeof(prefix) for level in self._known for prefix in level)
        return held + sum(map(sys.getsizeof, self._known))


def _rows(codes: Codes) -> Iterator[list[int]]:
    """The rows of a matrix. Equal numbers are one object, and few rows exist at a time."""
    numbers = np.array(range(int(codes.max()) + 1), object)
    for start in range(0, len(codes), _AT_ONCE):
        yield from numbers[codes[start : start + _AT_ONCE]].tolist()


def _best(scores: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best of scores (W, n): their scores, rows and columns."""
    kept, at = scores.flatten().topk(min(width, scores.numel()))
    alive = kept > -torch.inf
    at = at[alive]
    return kept[alive], at // scores.shape[1], at % scores.shape[1]


def named(step: Step, found: tuple[Tensor, Tensor, Tensor]) -> Best:
    """The continuations of a step as prefixes with scores."""
    prefixes = step.prefixes.tolist()
    return [
        ((*prefixes[beam], code), score)
        for score, beam, code in zip(*(tensor.tolist() for tensor in found), strict=True)
    ]
