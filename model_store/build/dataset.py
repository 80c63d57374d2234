"""The three tasks as token sequences with labels, in the form in which the model is asked later:
the next item after a history, the title of a SID, the SID of a title.

A user's sequence is cut at a random place: what is before the cut is the history of the prompt,
the item at the cut is the response. The SIDs *inside* the history may be labels too: each is a next
item given the ones before it, so that one pass over a sequence teaches all of its transitions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from tokenizers import Tokenizer

from model_store.build.tokenizer import END_OF_TEXT
from model_store.errors import BuildError
from model_store.pieces import Ids, Pieces
from model_store.prompt import Profile, PromptTemplate, TitleTasks
from model_store.sid.spec import Codes, SidSpec

IGNORE = -100
"""Label of a position without loss (PyTorch's default `ignore_index`)."""


@dataclass(frozen=True, slots=True)
class UserSequence:
    """One user: the items clicked, as catalogue rows in time order, and the profile."""

    user_id: str
    items: tuple[int, ...]
    profile: Profile = field(default_factory=dict)
    scene: str | None = None
    scenes: tuple[str | None, ...] = ()
    """Where each of the items was clicked, if that is known; then `scene` is not asked."""

    def scene_at(self, place: int) -> str | None:
        """Where the item at `place` was clicked."""
        return self.scenes[place] if self.scenes else self.scene


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids and, of the same length, the label of each position (`IGNORE` for none)."""

    ids: Ids
    labels: Ids

    def __len__(self) -> int:
        return len(self.ids)


class Encoder:
    """Turns the three tasks into the tokens of a prompt and its response.

    Pieces of text are tokenised once and joined as ids, see `model_store.pieces`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        spec: SidSpec,
        template: PromptTemplate,
        codes: Codes,
        *,
        end: str = END_OF_TEXT,
        titles: Sequence[str | None] = (),
    ) -> None:
        self.template = template
        self._pieces = Pieces(tokenizer, spec.levels[0].token(0))
        self.sids: list[str] = spec.texts(codes).to_pylist()
        self._opening_text = spec.opening
        self._opening = self._pieces.behind(spec.opening)
        self._separator = self._pieces.behind(template.separator)
        self._end = np.array([tokenizer.token_to_id(end)], np.int64)
        self._items = [self._pieces.behind(text) for text in self.sids]
        self._responses = [ids[len(self._opening) :] for ids in self._items]
        self.titles = titles
        self._around: dict[tuple[str, str], tuple[Ids, Ids]] = {}

    def example(
        self,
        history: Sequence[int],
        target: int,
        profile: Profile,
        scene: str | None = None,
        *,
        history_labels: bool = True,
    ) -> Example:
        """The prompt for `history` and the response `target`. Labels stand on the response and,
        with `history_labels`, on the SIDs of the history."""
        pieces: list[tuple[Ids, bool]]
        if history:
            before, after = self._frame(profile, scene)
            pieces = [(before, False)]
            for i, row in enumerate(history):
                if i:
                    pieces.append((self._separator, False))
                pieces.append((self._items[row], history_labels))
            pieces += [(after, False), (self._opening, False)]
        else:  # no SID cuts the text, so it is tokenised as one
            text = self.template.render([], profile, scene) + self._opening_text
            pieces = [(self._pieces.whole(text), False)]
        return self._join([*pieces, (self._responses[target], True), (self._end, True)])

    def title_of(self, row: int) -> Example:
        """SID → title."""
        prompt = self._pieces.whole(self._tasks.ask_title(self.sids[row]))
        title = self._pieces.behind(self.titles[row] or "")
        return self._join([(prompt, False), (title, True), (self._end, True)])

    def sid_of(self, row: int, title: str | None = None) -> Example:
        """Title → SID; `title` is what is known of it, None all."""
        title = (self.titles[row] or "") if title is None else title
        prompt = self._pieces.whole(self._tasks.ask_sid(title) + self._opening_text)
        return self._join([(prompt, False), (self._responses[row], True), (self._end, True)])

    @property
    def _tasks(self) -> TitleTasks:
        if self.template.tasks is None:
            raise BuildError("prompt.tasks is missing: how is a title to be asked for?")
        return self.template.tasks

    def _frame(self, profile: Profile, scene: str | None) -> tuple[Ids, Ids]:
        texts = self.template.around(profile, scene)
        if texts not in self._around:
            self._around[texts] = (self._pieces.before(texts[0]), self._pieces.behind(texts[1]))
        return self._around[texts]

    @staticmethod
    def _join(pieces: Sequence[tuple[Ids, bool]]) -> Example:
        ids = np.concatenate([piece for piece, _ in pieces])
        learnt = np.concatenate([np.full(len(piece), on) for piece, on in pieces])
        return Example(ids, np.where(learnt, ids, IGNORE))


def epoch(
    users: Sequence[UserSequence],
    encoder: Encoder,
    rng: np.random.Generator,
    *,
    max_history: int,
    last_share: float = 0.5,
    cold_share: float = 0.0,
    blind_share: float = 0.0,
    history_labels: bool = True,
) -> list[Example]:
    """One example per user with at least two items, each cut at a fresh random place.

    A share `blind_share` is asked without the profile, and as many without the scene: at serving
    time either may be unknown.
    """

    def hidden() -> bool:
        return blind_share > 0 and rng.random() < blind_share

    return [
        encoder.example(
            user.items[max(0, cut - max_history) : cut],
            user.items[cut],
            {} if hidden() else user.profile,
            None if hidden() else user.scene_at(cut),
            history_labels=history_labels,
        )
        for user, cut in cuts(users, rng, last_share=last_share, cold_share=cold_share)
    ]


def cuts(
    users: Sequence[UserSequence],
    rng: np.random.Generator,
    *,
    last_share: float,
    cold_share: float = 0.0,
) -> Iterator[tuple[UserSequence, int]]:
    """Each user with at least two items, and the place of the item that is asked for.

    A share `cold_share` is cut before the first item: profile and scene have to do. Of the others
    a share `last_share` is cut at the last item, which gives the longest history; the rest
    uniformly, so that short histories are asked for as often as they occur in life.
    """
    for user in users:
        if len(user.items) < 2:
            continue
        last = len(user.items) - 1
        if cold_share and rng.random() < cold_share:
            yield user, 0
        else:
            yield user, last if rng.random() < last_share else int(rng.integers(1, last + 1))


def cuts_in(
    users: Sequence[UserSequence], scene: str, rng: np.random.Generator, *, cold: bool = False
) -> Iterator[tuple[UserSequence, int]]:
    """Each user who clicked in `scene`, and the place of one of these clicks; with `cold` it may
    be the user's first."""
    for user in users:
        places = [i for i in range(not cold, len(user.items)) if user.scene_at(i) == scene]
        if places:
            yield user, int(rng.choice(places))


def fragment(title: str, rng: np.random.Generator) -> str:
    """Two or more words of a title that stand side by side, as people search for it."""
    words = title.split()
    if len(words) < 3:
        return title
    count = int(rng.integers(2, len(words)))
    start = int(rng.integers(len(words) - count + 1))
    return " ".join(words[start : start + count])


def titled_rows(encoder: Encoder, rng: np.random.Generator, count: int) -> list[int]:
    """`count` rows with a title, each as often as any other, give or take once."""
    rows = [row for row, title in enumerate(encoder.titles) if title]
    rounds = [rng.permutation(rows) for _ in range(-(-count // len(rows)) if rows else 0)]
    return [int(row) for row in np.concatenate([*rounds, []])[:count]]


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
