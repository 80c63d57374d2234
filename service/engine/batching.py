"""Queries of concurrent callers become batches, on one thread of the engine's own.

The thread takes the oldest waiting query and with it those of a like beam width and of its trie
that fit the token budget, so batches grow by themselves while the model is busy and nobody waits
for company. Between two batches it writes one token of a text, the texts taking turns.
"""

import asyncio
import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from service.engine.base import Beam, Engine, EngineStats, Query
from service.engine.text import Text
from service.errors import DeadlinePassed, EngineDead, EngineError


@dataclass(slots=True)
class _Waiting:
    query: Query
    future: asyncio.Future[list[Beam]]
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def gone(self) -> bool:
        """Whether nobody waits, or it is too late to start."""
        if self.query.late:
            self.finish(DeadlinePassed("the deadline passed while the query waited"))
            return True
        return self.future.cancelled()

    def finish(self, outcome: list[Beam] | BaseException) -> None:
        """Hands the outcome to the caller's loop; a caller that has gone is left alone."""

        def settle() -> None:
            if self.future.done():
                return
            if isinstance(outcome, BaseException):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)

        try:
            self.loop.call_soon_threadsafe(settle)
        except RuntimeError:  # the loop has been closed: nobody waits any more
            return


class BatchingEngine(Engine):
    """An engine that implements `_run` for one batch and `_write` for one text, and gets the rest.

    `batch_tokens` bounds the tokens of one batch, those of the prompts and of the beams; a query
    with more runs alone.
    """

    def __init__(self, *, batch_tokens: int) -> None:
        self._batch_tokens = batch_tokens
        self._waiting: deque[_Waiting] = deque()
        self._taken: list[_Waiting] = []
        self._texts: deque[tuple[Text, Iterator[int]]] = deque()
        self._changed = threading.Condition()
        self._running = threading.Lock()
        self._closing = False
        # Bounded, for nobody may ever ask.
        self._batch_sizes: deque[int] = deque(maxlen=10_000)
        self._prompts: deque[tuple[int, int]] = deque(maxlen=10_000)
        self._thread = threading.Thread(target=self._work, name="sidrec-engine", daemon=True)
        self._thread.start()

    @abstractmethod
    def _run(self, queries: Sequence[Query]) -> list[list[Beam]]:
        """Beams of checked queries of one trie; called by one thread at a time."""

    def _count_prompt(self, tokens: int, cached: int) -> None:
        """Of a prompt that `_run` has run, for the metrics."""
        self._prompts.append((tokens, cached))

    @abstractmethod
    def _write(self, prompt: Sequence[int], max_tokens: int) -> Iterator[int]:
        """The tokens behind a prompt, each computed when it is asked for, up to the end of the
        text; never asked for more than `max_tokens`. Runs on one thread at a time, as `_run`."""

    def search_batch(self, queries: Sequence[Query]) -> list[list[Beam]]:
        for query in queries:
            self.check(query)
        if not self.alive:
            raise EngineDead("the engine has stopped")
        found: list[list[Beam]] = [[]] * len(queries)
        left = list(range(len(queries)))
        while left:
            members = self._members([queries[i] for i in left])
            chosen = [left[m] for m in members]
            for i, beams in zip(chosen, self._locked([queries[i] for i in chosen]), strict=True):
                found[i] = beams
            left = [i for i in left if i not in set(chosen)]
        return found

    async def search(self, query: Query) -> list[Beam]:
        self.check(query)
        waiting = _Waiting(query, asyncio.get_running_loop().create_future())
        with self._changed:
            if not self.alive:
                raise EngineDead("the engine has stopped")
            self._waiting.append(waiting)
            self._changed.notify()
        return await waiting.future

    async def generate(self, prompt_token_ids: Sequence[int], max_tokens: int) -> list[int]:
        self.check_room(prompt_token_ids, max_tokens)
        text = Text(prompt_token_ids, max_tokens)
        with self._changed:
            if not self.alive:
                raise EngineDead("the engine has stopped")
            self._texts.append((text, self._write(prompt_token_ids, max_tokens)))
            self._changed.notify()
        return await asyncio.wrap_future(text.future)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._closing

    def stats(self) -> EngineStats:
        sizes = [self._batch_sizes.popleft() for _ in range(len(self._batch_sizes))]
        prompts = [self._prompts.popleft() for _ in range(len(self._prompts))]
        return EngineStats(
            len(self._waiting),
            sizes,
            prompt_tokens=sum(tokens for tokens, _ in prompts),
            cached_tokens=sum(cached for _, cached in prompts),
        )

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        """The thread: batches until closed. Whatever ends it, no caller is left waiting."""
        try:
            while self._next_batch():
                if self._taken:
                    self._answer(self._taken)
                self._write_a_token()
        finally:
            with self._changed:
                self._closing = True
                left: list[_Waiting | Text] = [*self._taken, *self._waiting]
                left += [text for text, _ in self._texts]
                self._waiting.clear()
            for waiting in left:
                waiting.finish(EngineDead("the engine has stopped"))

    def _next_batch(self) -> bool:
        """Waits for work and takes it: no query where there are only texts to write. False means
        that the engine is closing."""
        with self._changed:
            while not self._closing:
                # One look at each future: its loop may cancel it between two.
                present = [w for w in self._waiting if not w.gone()]
                if present:
                    # Taken before they leave the queue: at no moment is a caller in neither.
                    self._taken = [present[m] for m in self._members([w.query for w in present])]
                    taken = set(map(id, self._taken))
                    self._waiting = deque(w for w in present if id(w) not in taken)
                    return True
                self._waiting.clear()
                self._taken = []
                if self._texts:
                    return True
                self._changed.wait()
            return False

    def _write_a_token(self) -> None:
        """Of the text whose turn it is; it goes to the end of the line until it is finished."""
        if not self._texts:
            return
        text, steps = self._texts[0]
        try:
            with self._running:
                goes_on = not text.future.cancelled() and text.extend(steps)
        except Exception as error:
            text.finish(_wrapped(error))
            goes_on = False
        else:
            if not goes_on:
                text.finish(text.tokens)
        with self._changed:
            self._texts.popleft()
            if goes_on:
                self._texts.append((text, steps))

    def _members(self, queries: Sequence[Query]) -> list[int]:
        """The first query, and those behind it that may share its batch.

        Each query of a batch costs the beams of its widest one, so widths within a batch differ by
        a factor of two at most.
        """
        members, widest = [0], queries[0].beam_width
        narrowest, tokens = widest, len(queries[0].prompt_token_ids)
        trie = self.trie_of(queries[0])
        for i, query in enumerate(queries[1:], start=1):
            if self.trie_of(query) is not trie:
                continue
            wide, narrow = max(widest, query.beam_width), min(narrowest, query.beam_width)
            more = tokens + len(query.prompt_token_ids)
            beams = (len(members) + 1) * wide * trie.depth
            if wide <= 2 * narrow and more + beams <= self._batch_tokens:
                members.append(i)
                widest, narrowest, tokens = wide, narrow, more
            elif tokens + len(members) * widest * trie.depth >= self._batch_tokens:
                break
        return members

    def _answer(self, batch: list[_Waiting]) -> None:
        try:
            outcomes: Sequence[list[Beam] | BaseException] = self._locked([w.query for w in batch])
        except Exception as error:
            outcomes = [self._alone(w) for w in batch] if len(batch) > 1 else [_wrapped(error)]
        for waiting, outcome in zip(batch, outcomes, strict=True):
            waiting.finish(outcome)

    def _alone(self, waiting: _Waiting) -> list[Beam] | BaseException:
        """A query of a batch that failed, by itself: only the one at fault fails again."""
        try:
            return self._locked([waiting.query])[0]
        except Exception as error:
            return _wrapped(error)

    def _locked(self, queries: Sequence[Query]) -> list[list[Beam]]:
        with self._running:
            self._batch_sizes.append(len(queries))
            return self._run(queries)


def _wrapped(error: Exception) -> EngineError:
    if isinstance(error, EngineError):
        return error
    wrapped = EngineError(f"{type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
