"""Processes that send load together, kept from one run to the next."""

import gc
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.sharedctypes import SynchronizedArray
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench.load.samples import Samples
from bench.load.worker import PER_WORKER, Done, Step, Target, Task, prepare, work
from bench.report import console

_AHEAD_S = 0.3
"""For tasks to be handed over before the first request is due."""

_LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Sent:
    """What a run gave, and what sending it took.

    wall_s: from the beginning until the last request had ended
    cpu_s:  processor time of all processes
    """

    steps: Sequence[Step]
    samples: Samples
    wall_s: float
    cpu_s: float
    processes: int

    @property
    def seconds(self) -> float:
        """In which requests were due."""
        return sum(step.seconds for step in self.steps)


class Fleet:
    """`processes` of them; they start with the first run."""

    def __init__(self, target: Target, processes: int) -> None:
        self._target = target
        self._processes = processes
        # Ids of one run of the command must differ from those of any other.
        self._name, self._runs = f"load-{time.time_ns():x}", 0
        context = multiprocessing.get_context("spawn")
        self._counts: SynchronizedArray[int] = context.Array("q", PER_WORKER * processes)
        self._pool = ProcessPoolExecutor(
            processes, mp_context=context, initializer=_begin, initargs=(self._counts,)
        )

    def __enter__(self) -> "Fleet":
        # A process that is started late would be late with its first requests.
        for started in [self._pool.submit(time.sleep, _LOOK_S) for _ in range(self._processes)]:
            started.result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def run(self, steps: Sequence[Step], title: str) -> Sent:
        """Sends all of it, and shows how far it is."""
        self._runs += 1
        self._counts[:] = [0] * len(self._counts)
        begins = time.perf_counter() + _AHEAD_S
        name = f"{self._name}-{self._runs}"
        tasks = [
            Task(self._target, steps, begins, name, self._runs, number, self._processes)
            for number in range(self._processes)
        ]
        running = [self._pool.submit(work, task) for task in tasks]
        self._watch(running, begins, sum(step.seconds for step in steps), title)
        done = [one.result() for one in running]
        return Sent(
            steps,
            Samples.joined([one.samples for one in done]),
            max(one.wall_s for one in done),
            sum(one.cpu_s for one in done),
            self._processes,
        )

    def _watch(
        self, running: Sequence[Future[Done]], begins: float, seconds: float, title: str
    ) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[told]}"),
        )
        hidden = not console.is_terminal
        with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
            bar = progress.add_task(title, total=seconds, told="")
            while not all(one.done() for one in running):
                sent, ended, failed = (sum(self._counts[i::PER_WORKER]) for i in range(PER_WORKER))
                told = f"{sent:,} sent, {sent - ended:,} under way, {failed:,} failed"
                progress.update(bar, completed=time.perf_counter() - begins, told=told)
                time.sleep(_LOOK_S)


def _begin(counts: Any) -> None:
    gc.freeze()
    prepare(counts)
