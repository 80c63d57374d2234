"""Takes cohorts through their levels on one core: each step carries the rows of all of them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_store.sid import Trie
from service.engine.base import Query
from service.engine.text import Text
from service.engine.vllm.cohort import Cohort
from service.engine.vllm.core import Core
from service.engine.vllm.levels import LevelCodes
from service.engine.vllm.task import Task
from service.errors import EngineError


@dataclass(frozen=True, slots=True)
class Counts:
    """Since the engine started. Prompt tokens count once for each row that begins with them."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    preemptions: int = 0


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request in the core, and the row that it answers."""

    cohort: Cohort
    row: int
    query: int
    request: Any


class Driver:
    """Not for two threads: whoever drives it starts tasks and calls `step` while `busy`."""

    def __init__(
        self, core: Core, trie: Trie, codes: LevelCodes, ends: frozenset[int] = frozenset()
    ) -> None:
        self._core = core
        self._ends = ends
        self._texts: dict[str, Text] = {}
        self._trie = trie
        self._codes = codes
        self._asked: dict[str, _Asked] = {}
        self._missing: dict[Cohort, int] = {}
        self._names = 0
        self.counts = Counts()

    @property
    def tasks(self) -> list[Task]:
        """All that have started and are not answered."""
        return [task for cohort in self._missing for task in cohort.tasks]

    @property
    def rows(self) -> int:
        return len(self._asked) + len(self._texts)

    def admissible(self, queries: Sequence[Query]) -> int:
        """How many of `queries`, from the first, may start now; one always may if none runs."""
        slots = self._core.max_num_seqs - len(self._texts)
        slots -= sum(self._slots(task.query) for task in self.tasks)
        tokens = self._core.max_num_batched_tokens
        for i, query in enumerate(queries):
            slots -= self._slots(query)
            tokens -= len(query.prompt_token_ids)
            if min(slots, tokens) < 0:
                return i or int(not self._missing)
        return len(queries)

    def start(self, tasks: Sequence[Task]) -> None:
        """Sets out with tasks, as one cohort for each trie; one that cannot be answered fails
        alone."""
        by_trie: dict[Trie, list[Task]] = defaultdict(list)
        for task in tasks:
            by_trie[self._trie_of(task.query)].append(task)
        for trie, alike in by_trie.items():
            self._start(alike, trie)

    def _start(self, tasks: Sequence[Task], trie: Trie) -> None:
        cohort = None
        try:
            cohort = Cohort(tasks, trie, self._codes, self._core.spare_rows)
            for task in tasks:
                task.prompt = self._core.prompt(task.query.adapter)
            self._go_on(cohort)
        except Exception as error:
            self._part(tasks, cohort, error)

    def write(self, text: Text) -> None:
        """Sets out with a text; one that vLLM does not take fails alone."""
        self._names += 1
        name = str(self._names)
        try:
            self._core.write(name, text, self._ends)
        except Exception as error:
            text.finish(EngineError(_described(error)))
        else:
            self._texts[name] = text

    def step(self) -> None:
        """Runs the model once, and sends those cohorts on whose rows are all answered."""
        answered: dict[Cohort, list[tuple[int, Any]]] = defaultdict(list)
        for output in self._core.step():
            if output.request_id in self._texts:
                self._extend(output)
                continue
            asked = self._asked.pop(output.request_id, None)
            if asked is None:  # its caller went while the model ran
                continue
            self._count(asked, output)
            self._missing[asked.cohort] -= 1
            answered[asked.cohort].append((asked.row, output.new_logprobs))
        for cohort, rows in answered.items():
            try:
                self._take(cohort, rows)
                if self._missing[cohort] == 0:
                    cohort.advance()
                    self._go_on(cohort)
            except Exception as error:
                self._part(cohort.tasks, cohort, error)

    def drop_cancelled(self) -> None:
        """Forgets the queries and texts whose callers have gone, and takes them out of the core."""
        if left := [name for name, text in self._texts.items() if text.future.cancelled()]:
            self._core.abort(left)
            for name in left:
                del self._texts[name]
        for cohort in list(self._missing):
            gone = [i for i, task in enumerate(cohort.tasks) if task.future.cancelled()]
            if not gone:
                continue
            for query in gone:
                cohort.drop(query)
            self._forget(cohort, set(gone))
            if len(gone) == len(cohort.tasks):
                del self._missing[cohort]
            elif self._missing[cohort] == 0:
                try:
                    cohort.advance()
                    self._go_on(cohort)
                except Exception as error:
                    self._part(cohort.tasks, cohort, error)

    def _go_on(self, cohort: Cohort) -> None:
        """Asks for the next level that needs the model, or answers where none is left."""
        while not cohort.done:
            rows = cohort.rows()
            if rows:
                self._missing[cohort] = len(rows)
                for number, row in enumerate(rows):
                    self._names += 1
                    name = str(self._names)
                    prompt = cohort.tasks[row.query].prompt
                    assert prompt is not None
                    request = self._core.add(name, row.tokens, row.state, row.candidates, prompt)
                    self._asked[name] = _Asked(cohort, number, row.query, request)
                return
            cohort.advance()
        self._missing.pop(cohort, None)
        for task, beams in zip(cohort.tasks, cohort.answers(), strict=True):
            self._release(task)
            task.finish(beams)

    def _extend(self, output: Any) -> None:
        """One token more, or the end, of a text."""
        text = self._texts[output.request_id]
        text.tokens += [token for token in output.new_token_ids if token not in self._ends]
        if output.finish_reason is not None:
            del self._texts[output.request_id]
            text.finish(text.tokens)

    def _take(self, cohort: Cohort, rows: list[tuple[int, Any]]) -> None:
        if any(logprobs is None for _, logprobs in rows):
            raise EngineError("vLLM has given up a request")
        # The first column is the token that vLLM would have gone on with.
        ids = np.concatenate([logprobs.logprob_token_ids for _, logprobs in rows])[:, 1:]
        logp = np.concatenate([logprobs.logprobs for _, logprobs in rows])[:, 1:]
        cohort.take([row for row, _ in rows], ids, logp)

    def _part(self, tasks: Sequence[Task], cohort: Cohort | None, error: Exception) -> None:
        """A cohort that failed: its queries start again one by one, so only the one at fault
        fails again."""
        if cohort is not None:
            self._forget(cohort, set(range(len(tasks))))
            self._missing.pop(cohort, None)
        if len(tasks) > 1:
            for task in tasks:
                self.start([task])
            return
        wrapped = error if isinstance(error, EngineError) else EngineError(_described(error))
        wrapped.__cause__ = error.__cause__ if wrapped is error else error
        tasks[0].finish(wrapped)

    def _forget(self, cohort: Cohort, queries: set[int]) -> None:
        names = [n for n, a in self._asked.items() if a.cohort is cohort and a.query in queries]
        for name in names:
            del self._asked[name]
        self._missing[cohort] = self._missing.get(cohort, 0) - len(names)
        self._core.abort(names)
        for query in queries:
            self._release(cohort.tasks[query])

    def _release(self, task: Task) -> None:
        if task.prompt is not None:
            self._core.release(task.prompt)

    def _count(self, asked: _Asked, output: Any) -> None:
        done, prefill = self.counts, output.prefill_stats
        self.counts = Counts(
            done.prompt_tokens + (prefill.num_prompt_tokens if prefill else 0),
            done.cached_tokens + (prefill.num_cached_tokens if prefill else 0),
            done.preemptions + asked.request.num_preemptions,
        )

    def _slots(self, query: Query) -> int:
        """Requests that a query has in the core at once, at most."""
        trie = self._trie_of(query)
        return min(query.beam_width, trie.n_nodes(trie.depth - 1))

    def _trie_of(self, query: Query) -> Trie:
        return self._trie if query.trie is None else query.trie


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
