"""The engine on vLLM: its core in this process, on one thread of ours."""

import asyncio
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from itertools import islice
from typing import Any, TypeVar

import torch

from model_store.adapters import Adapter
from model_store.bundle import Bundle
from service.engine.base import Beam, Engine, EngineStats, Query
from service.engine.text import Text
from service.engine.vllm.core import Core
from service.engine.vllm.driver import Counts, Driver
from service.engine.vllm.levels import LevelCodes
from service.engine.vllm.options import EngineArgs, engine_args
from service.engine.vllm.task import Task
from service.errors import EngineDead, EngineError

Work = TypeVar("Work", Task, Text)


class VllmEngine(Engine):
    """The engine for any model that vLLM runs. `options` are vLLM's engine arguments.

    Queries join those in flight at any step of the model, and leave as soon as they are answered;
    those of different adapters share its steps.
    """

    adapters: Mapping[str, Adapter]
    alone = (
        "vLLM keeps its configuration in globals: while it loads a model, no other of the process"
        " can run, so every answer would wait for the whole load"
    )

    def __init__(self, bundle: Bundle, **options: Any) -> None:
        args = engine_args(bundle, options)
        self.trie = bundle.trie
        self.max_length = args.max_model_len
        self.max_prompt_tokens = args.max_model_len - bundle.spec.depth
        self._ends = bundle.end_tokens
        self.adapters = bundle.adapters
        self._codes = LevelCodes(bundle.level_tokens)
        self._waiting: deque[Task] = deque()
        self._texts: deque[Text] = deque()
        # All that are not answered, waiting or started.
        self._open: dict[Future[Any], Task | Text] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._steps: deque[tuple[int, int]] = deque(maxlen=10_000)  # bounded: nobody may ever ask
        self._driver: Driver  # the thread's own, and read by `stats`
        self._reported: Counts
        started: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._work, args=(args, started), name="sidrec-vllm", daemon=True
        )
        self._thread.start()
        try:
            started.result()
        except Exception as error:
            self._thread.join()
            raise EngineError(f"engine 'vllm': {error}") from error

    def search_batch(self, queries: Sequence[Query]) -> list[list[Beam]]:
        tasks = self._hand_in(queries)
        return [task.future.result() for task in tasks]

    async def search(self, query: Query) -> list[Beam]:
        [task] = self._hand_in([query])
        return await asyncio.wrap_future(task.future)

    async def generate(self, prompt_token_ids: Sequence[int], max_tokens: int) -> list[int]:
        self.check_room(prompt_token_ids, max_tokens)
        text = Text(prompt_token_ids, max_tokens)
        self._enter([text], self._texts)
        return await asyncio.wrap_future(text.future)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._closing

    def stats(self) -> EngineStats:
        steps = [self._steps.popleft() for _ in range(len(self._steps))]
        now, before = self._driver.counts, self._reported
        self._reported = now
        return EngineStats(
            queue_depth=len(self._waiting),
            batch_sizes=[queries for queries, _ in steps],
            step_rows=[rows for _, rows in steps],
            prompt_tokens=now.prompt_tokens - before.prompt_tokens,
            cached_tokens=now.cached_tokens - before.cached_tokens,
            preemptions=now.preemptions - before.preemptions,
        )

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _hand_in(self, queries: Sequence[Query]) -> list[Task]:
        for query in queries:
            self.check(query)
        tasks = [Task(query) for query in queries]
        self._enter(tasks, self._waiting)
        return tasks

    def _enter(self, work: Sequence[Work], line: deque[Work]) -> None:
        """Puts work into a line, and tells the thread."""
        with self._changed:
            if not self.alive:
                raise _dead(None)
            self._open.update((one.future, one) for one in work)
            line.extend(work)
            self._changed.notify()
        for one in work:
            one.future.add_done_callback(self._open.pop)

    def _work(self, args: EngineArgs, started: Future[None]) -> None:
        """The thread. Whatever ends it, no caller is left waiting."""
        torch.set_num_threads(torch.get_num_threads())  # OpenMP asks each thread for itself
        try:
            core = Core(args, self.adapters)
        except BaseException as error:
            started.set_exception(error)
            return
        self._driver = driver = Driver(core, self.trie, self._codes, self._ends)
        try:
            core.load_adapters()
            self._try_out(driver)
            self._reported = driver.counts
        except BaseException as error:
            core.close()
            started.set_exception(error)
            return
        started.set_result(None)
        cause: BaseException | None = None
        try:
            self._drive(driver)
        except BaseException as error:
            cause = error
            raise
        finally:
            with self._changed:
                self._closing = True
                self._waiting.clear()
                self._texts.clear()
            # Whatever the driver knew of them: it may have been stopped between two of its steps.
            for task in list(self._open.values()):
                task.finish(_dead(cause))
            core.close()

    def _try_out(self, driver: Driver) -> None:
        """A search with the model and each adapter: what vLLM compiles at first use, and a model
        that it loads but cannot run, belong to the start."""
        tasks = [Task(Query([0], 2, adapter=adapter)) for adapter in (None, *self.adapters)]
        driver.start(tasks)
        while driver.rows:
            driver.step()
        for task in tasks:
            task.future.result()

    def _drive(self, driver: Driver) -> None:
        """Steps until closed. An error of the core itself ends the thread, and the engine."""
        while not self._closing:
            driver.drop_cancelled()
            if tasks := self._next_tasks(driver):
                driver.start(tasks)
            while self._texts:
                driver.write(self._texts.popleft())
            if driver.rows:
                self._steps.append((len(driver.tasks), driver.rows))
                driver.step()

    def _next_tasks(self, driver: Driver) -> list[Task]:
        """Those that may start now; waits for some while nothing else is to be done."""
        with self._changed:
            while not self._closing:
                gone = {id(task) for task in self._waiting if task.gone()}
                if gone:
                    self._waiting = deque(t for t in self._waiting if id(t) not in gone)
                if self._waiting or self._texts or driver.rows:
                    queries = [t.query for t in islice(self._waiting, _LOOK_AHEAD)]
                    return [self._waiting.popleft() for _ in range(driver.admissible(queries))]
                self._changed.wait()
            return []


def _dead(cause: BaseException | None) -> EngineDead:
    error = EngineDead("the engine has stopped")
    error.__cause__ = cause
    return error


_LOOK_AHEAD = 1024
"""Waiting queries that are looked at in one step: more never fit."""
