"""The contract of an engine: prompts in, beams of real SIDs out.

An engine knows tokens and the trie. It knows no users, no items' titles, no Redis and no HTTP.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from model_store.sid import Eligibility, Trie
from service.engine.trace import Trace
from service.errors import EngineError


@dataclass(frozen=True, slots=True)
class Query:
    """One search: the tokens of a prompt, how many beams, and which items may be found.

    eligible: None allows the whole catalogue
    adapter:  which of the engine's adapters changes the model; None is the model as it is
    trie:     the SIDs that there are, as the engine's `place` returned it; None is its own
    explain:  whether its beams shall say what each level added to their scores
    trace:    where the engine writes down what became of each level; None writes nothing
    deadline: `time.monotonic()` after which it is not started any more; None waits as long as
              it takes
    """

    prompt_token_ids: Sequence[int]
    beam_width: int
    eligible: Eligibility | None = None
    adapter: str | None = None
    trie: Trie | None = None
    explain: bool = False
    trace: Trace | None = None
    deadline: float | None = None

    @property
    def late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline


@dataclass(frozen=True, slots=True)
class Beam:
    """One SID found.

    codes: its codes, without `END`
    score: sum of the log-probabilities of its tokens under the softmax over the full vocabulary
    rows:  the rows of the query's trie that carry this SID, eligible or not
    gains: per code its log-probability, of which `score` is the sum; only where the query asked
    """

    codes: tuple[int, ...]
    score: float
    rows: range
    gains: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot for the metrics: queries waiting now, and what has run since the last one.

    batch_sizes:   queries that ran together, per batch or step
    step_rows:     prefixes that a step of the model carried, from an engine that mixes queries
    prompt_tokens: tokens in front of those prefixes, and how many of them came from a cache
    preemptions:   prefixes that lost their place in the cache before they were answered
    """

    queue_depth: int
    batch_sizes: Sequence[int]
    step_rows: Sequence[int] = ()
    prompt_tokens: int = 0
    cached_tokens: int = 0
    preemptions: int = 0


class Engine(ABC):
    """Constrained beam search over SIDs in the words of one bundle.

    Beams come back best first; equal scores are ordered by code. A query gets
    min(beam_width, eligible SIDs) beams, always. All engines agree on the beams of a query, and on
    scores within 1e-3 in fp32.
    """

    trie: Trie
    """The bundle's. A query may bring another; queries of different tries do not wait for each
    other's sake, but those of one trie are faster together."""
    max_prompt_tokens: int
    """Longest prompt that leaves room for a SID."""
    max_length: int
    """Positions that the model has."""
    adapters: Collection[str] = ()
    """Names of the adapters that a query can ask for."""
    alone: str | None = None
    """Why no other engine can be made in this process while this one answers; None: one can."""

    def place(self, trie: Trie) -> Trie:
        """The same trie where this engine searches; what a query carries. Safe from any thread.

        Its SIDs follow the bundle's spec and have a token for each code.
        """
        return trie

    def trie_of(self, query: Query) -> Trie:
        return self.trie if query.trie is None else query.trie

    @abstractmethod
    def search_batch(self, queries: Sequence[Query]) -> list[list[Beam]]:
        """Searches for all queries and blocks until they are done; safe from any thread.

        Raises `EngineError` for a query that cannot be answered (no tokens, or too many),
        `EngineDead` when none will be answered any more.
        """

    @abstractmethod
    async def search(self, query: Query) -> list[Beam]:
        """Searches for one query, together with those that other callers have in flight.

        A caller that is cancelled before its query starts costs nothing. Raises `EngineError`
        for this query alone, `DeadlinePassed` where it was not started in time, `EngineDead` when
        no query will be answered any more.
        """

    @abstractmethod
    async def generate(self, prompt_token_ids: Sequence[int], max_tokens: int) -> list[int]:
        """What the model writes behind a prompt when nothing constrains it: greedy decoding, at
        most `max_tokens` tokens, up to the end of the text, which is not part of the answer.

        Searches go on in between: they wait for one token of a text at a time, never for all of
        it. Raises `EngineError` for a prompt that leaves no room for `max_tokens`, `EngineDead`
        when none will be answered any more.
        """

    def check_room(self, prompt_token_ids: Sequence[int], max_tokens: int) -> None:
        """Raises `EngineError` for a text that `generate` cannot write."""
        tokens, most = len(prompt_token_ids), self.max_length - max_tokens
        if max_tokens < 1 or not 1 <= tokens <= most:
            raise EngineError(
                f"{max_tokens} tokens behind a prompt of {tokens} do not fit into"
                f" {self.max_length} positions"
            )

    def check(self, query: Query) -> None:
        """Raises `EngineError` for a query that cannot be answered."""
        tokens = len(query.prompt_token_ids)
        if not 1 <= tokens <= self.max_prompt_tokens:
            raise EngineError(
                f"a prompt has 1 to {self.max_prompt_tokens} tokens here, this one {tokens}"
            )
        if query.beam_width < 1:
            raise EngineError(f"a beam width of {query.beam_width}")
        if query.adapter is not None and query.adapter not in self.adapters:
            raise EngineError(f"no adapter {query.adapter!r} here")

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Whether a query handed in now can be answered."""

    @abstractmethod
    def stats(self) -> EngineStats:
        """What has happened since the last call."""

    @abstractmethod
    def close(self) -> None:
        """Ends queries still waiting with `EngineDead` and frees what the engine holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
