"""A person who reads one page and does what it says, in a folder of its own."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.docs.blocks import ROOT, Block
from tests.docs.shell import Command, agrees, commands, simple_commands
from tests.faults.processes import eventually, free_port
from tests.system import PACKAGES, program

PATIENCE_S = 120
_WRITTEN = ("localhost:8000", "127.0.0.1:8000")
# What pages read from a clone of the repository.
_CLONE = ("bench", "docker", "docs", "model_store", "service")


class Reader:
    """Runs the blocks of a page. Where the page starts no service by itself, port 8000 of its
    commands is that of `shared`, which starts one; a later `sidrec serve` takes its place."""

    def __init__(self, folder: Path, shared: Callable[[], str]) -> None:
        self._folder = folder
        self._shared = shared
        self._served: subprocess.Popen[bytes] | None = None
        self._address: str | None = None
        self._printed = ""
        self._state = folder / ".state"
        self._state.touch()
        self._curl = folder / ".curl"
        self._curl.mkdir()
        (self._curl / ".curlrc").write_text("fail-with-body\n")
        for name in _CLONE:
            (folder / name).symlink_to(ROOT / name)

    def does(self, block: Block) -> None:
        """Fails where something that is run fails, or prints what the page does not show."""
        if block.output:
            if not agrees(self._addressed(block.text), self._printed):
                _fail(block, f"prints\n{self._printed}\ninstead of\n{block.text}")
        elif block.language == "sh":
            for command in commands(block.text):
                self._runs(block, command)
        else:
            self._script(block)

    def leaves(self) -> None:
        """Stops whatever the page started and left running."""
        self._ends_serving()
        here = str(self._folder)
        for process in psutil.process_iter(["cwd"]):
            if (process.info["cwd"] or "").startswith(here):
                process.kill()
                process.wait(PATIENCE_S)

    def _ends_serving(self) -> None:
        if self._served is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._served.pid, signal.SIGTERM)
            self._served.wait(PATIENCE_S)
            self._served = None

    def _runs(self, block: Block, command: Command) -> None:
        calls = list(simple_commands(command.text))
        for name in {call[0] for call in calls} & PACKAGES.keys():
            program(name)
        if command.shown is None and any(call[:2] == ["sidrec", "serve"] for call in calls):
            self._serves(block, command.text)
            return
        text, shown = self._addressed(command.text), command.shown
        saves = f"trap '{{ export -p; echo cd \"$PWD\"; }} > {self._state}' EXIT"
        script = f"{self._before()}{saves}\n{text}\n"
        # An error that a page shows is one that it wants; any other is not.
        more = {} if shown is not None else {"CURL_HOME": str(self._curl)}
        done = self._run(["bash", "-c", script], more)
        if shown is None and done.returncode:
            _fail(block, f"{text}\nends with {done.returncode}:\n{done.stdout}")
        if shown is not None and not agrees(self._addressed(shown), done.stdout):
            _fail(block, f"{text}\nprints\n{done.stdout}\ninstead of\n{shown}")

    def _script(self, block: Block) -> None:
        if block.language == "python":
            start, name = sys.executable, "example.py"
        else:
            start, name = program("node"), "example.mjs"
        (self._folder / name).write_text(self._addressed(block.text))
        done = self._run([start, name], {})
        self._printed = done.stdout
        if done.returncode:
            _fail(block, f"ends with {done.returncode}:\n{done.stdout}")

    def _serves(self, block: Block, text: str) -> None:
        """Takes the place of the service before, if there is one."""
        self._ends_serving()
        port = free_port()
        log = self._folder / "served.log"
        script = f"{self._before()}SIDREC_PORT={port}\n{text}"
        with log.open("w") as output:
            self._served = process = subprocess.Popen(
                ["bash", "-c", script],
                cwd=self._folder,
                env=self._environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        eventually(lambda: _ready(port) or process.poll() is not None, PATIENCE_S)
        if process.poll() is not None:
            _fail(block, f"{text}\nends with {process.returncode}:\n{log.read_text()}")
        self._address = f"127.0.0.1:{port}"

    def _run(self, words: list[str], more: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            cwd=self._folder,
            env=self._environment() | more,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def _environment(self) -> dict[str, str]:
        # The programs of this environment, as if it were activated, and our code.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        ours = {"PATH": path, "PYTHONPATH": str(ROOT), "SIDREC_THREADS": "1", "COLUMNS": "120"}
        return dict(os.environ) | ours

    def _before(self) -> str:
        """What the commands before have left: variables, the folder, and the service of now."""
        url = f"SIDREC_URL=http://{self._address}; " if self._address else ""
        return f"set -a; source {self._state}; {url}"

    def _addressed(self, text: str) -> str:
        """The text with the address of the service in place of the one that pages name."""
        if "localhost:8000" not in text and "127.0.0.1:8000" not in text and "sidrec" not in text:
            return text
        self._address = self._address or self._shared()
        for written in _WRITTEN:
            text = text.replace(written, self._address)
        return text


def _ready(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return httpx.get(f"http://127.0.0.1:{port}/readyz").is_success
    except (OSError, httpx.HTTPError):
        return False


def _fail(block: Block, message: str) -> None:
    pytest.fail(f"{block.place}: {message}", pytrace=False)
