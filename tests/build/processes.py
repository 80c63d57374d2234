"""`sidrec build` in processes of its own, to be killed and starved.

They are forked from a process that has already imported what takes seconds.
"""

import os
import re
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch

_SERVER = get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["service.cli", "model_store.build.pipeline", "service.offline", "matplotlib.figure", "peft"]
)

Trouble = Callable[[], None]
"""What a process does to itself before it starts."""


@dataclass(frozen=True)
class Ended:
    """How a process ended, and what it wrote to standard output and standard error."""

    code: int
    output: str


@dataclass(frozen=True)
class KilledAt:
    """kill -9 at the moment at which the process opens, makes, renames or removes a path: when
    Python's name of the event and the path, with a space between, match."""

    pattern: str

    def __call__(self) -> None:
        wanted = re.compile(self.pattern)

        def watch(event: str, args: tuple[object, ...]) -> None:
            if event not in ("open", "os.mkdir", "os.rename", "shutil.rmtree"):
                return
            for path in args:
                if isinstance(path, str | os.PathLike) and wanted.search(f"{event} {path!s}"):
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)


@dataclass(frozen=True)
class FilesUpTo:
    """No file can grow beyond so many bytes."""

    size: int

    def __call__(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.size))


def build(
    config: Path, store: Path, work: Path, *more: str, trouble: Trouble | None = None
) -> Ended:
    """Runs to the end, whatever that is. `more` are options of the command."""
    ours, theirs = _SERVER.Pipe(duplex=False)
    arguments = ["sidrec", "build", str(config), "--out", str(store), "--work", str(work), *more]
    process = _SERVER.Process(target=_main, args=(arguments, theirs, trouble))
    process.start()
    theirs.close()
    with open(ours.fileno(), closefd=False, encoding="utf-8", errors="replace") as written:
        output = written.read()
    process.join()
    assert process.exitcode is not None
    return Ended(process.exitcode, output)


def _main(arguments: list[str], output: Connection, trouble: Trouble | None) -> None:
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    output.close()
    torch.set_num_threads(1)
    sys.argv = arguments
    from service.cli import main

    if trouble:
        trouble()
    main()
