"""Click sequences as token sequences with labels, in the form in which the model is asked later.

A user's sequence is cut at a random place: what is before the cut is the history of the prompt,
the item at the cut is the response. The SIDs *inside* the history are labels too: each is a next
item given the ones before it, so that one pass over a sequence teaches all of its transitions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from model_store.prompt import Profile, PromptTemplate
from model_store.sid.spec import Codes, SidSpec

IGNORE = -100
"""Label of a position without loss (PyTorch's default `ignore_index`)."""

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class UserSequence:
    """One user: the items clicked, as catalogue rows in time order, and the profile."""

    user_id: str
    items: tuple[int, ...]
    profile: Profile = field(default_factory=dict)
    scene: str | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids and, of the same length, the label of each position (`IGNORE` for none)."""

    ids: Ids
    labels: Ids

    def __len__(self) -> int:
        return len(self.ids)


class NextItemEncoder:
    """Turns a history and a target into the tokens of a prompt and its response.

    Pieces of text are tokenised once and joined as ids. This equals tokenising the whole text
    because the tokenizer cuts text at SID tokens before anything else.
    """

    def __init__(
        self, tokenizer: Tokenizer, spec: SidSpec, template: PromptTemplate, codes: Codes
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._opening = self._encode(spec.opening)
        self._separator = self._encode(template.separator)
        self._end = self._encode("<|endoftext|>")
        self._items = [self._encode(text) for text in spec.texts(codes).to_pylist()]
        self._around: dict[tuple[str, str], tuple[Ids, Ids]] = {}

    def example(
        self, history: Sequence[int], target: int, profile: Profile, scene: str | None = None
    ) -> Example:
        """The prompt for `history` and the response `target`, with labels on every SID."""
        before, after = self._frame(profile, scene)
        response = self._items[target][len(self._opening) :]
        pieces: list[tuple[Ids, bool]] = [(before, False)]
        for i, row in enumerate(history):
            if i:
                pieces.append((self._separator, False))
            pieces.append((self._items[row], True))
        pieces += [(after, False), (self._opening, False), (response, True), (self._end, True)]
        ids = np.concatenate([piece for piece, _ in pieces])
        learnt = np.concatenate([np.full(len(piece), on) for piece, on in pieces])
        return Example(ids, np.where(learnt, ids, IGNORE))

    def _frame(self, profile: Profile, scene: str | None) -> tuple[Ids, Ids]:
        texts = self._template.around(profile, scene)
        if texts not in self._around:
            self._around[texts] = (self._encode(texts[0]), self._encode(texts[1]))
        return self._around[texts]

    def _encode(self, text: str) -> Ids:
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int64)


def epoch(
    users: Sequence[UserSequence],
    encoder: NextItemEncoder,
    rng: np.random.Generator,
    *,
    max_history: int,
    last_share: float = 0.5,
) -> list[Example]:
    """One example per user with at least two items, each cut at a fresh random place.

    A share `last_share` is cut at the last item, which gives the longest history; the rest
    uniformly, so that short histories are asked for as often as they occur in life.
    """
    examples = []
    for user in users:
        if len(user.items) < 2:
            continue
        last = len(user.items) - 1
        cut = last if rng.random() < last_share else int(rng.integers(1, last + 1))
        history = user.items[max(0, cut - max_history) : cut]
        examples.append(encoder.example(history, user.items[cut], user.profile, user.scene))
    return examples


def batches(
    examples: Sequence[Example], rng: np.random.Generator, *, tokens: int
) -> Iterator[tuple[Ids, Ids]]:
    """Batches of at most `tokens` padded positions, of examples of similar length, shuffled.

    Yields ids and labels of shape (examples, length). Padding stands on the right, where a causal
    model does not see it, and carries no label.
    """
    lengths = np.array([len(example) for example in examples])
    order = np.lexsort((rng.random(len(examples)), lengths))
    groups: list[list[int]] = [[]]
    for i in order:
        if groups[-1] and lengths[i] * (len(groups[-1]) + 1) > tokens:
            groups.append([])
        groups[-1].append(int(i))
    for g in rng.permutation(len(groups)):
        group = [examples[i] for i in groups[g]]
        shape = (len(group), max(len(example) for example in group))
        ids, labels = np.zeros(shape, np.int64), np.full(shape, IGNORE, np.int64)
        for row, example in enumerate(group):
            ids[row, : len(example)] = example.ids
            labels[row, : len(example)] = example.labels
        yield ids, labels
