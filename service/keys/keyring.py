"""The keys in force, and the file that they come from, which is looked at again and again."""

import asyncio
import hmac
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import structlog
from structlog.typing import FilteringBoundLogger

from service.errors import Unidentified
from service.keys.file import KeysInvalid, distinct, read_keys
from service.keys.key import Key, digest
from service.repeated import repeated

POLL_S = 1.0

_log: FilteringBoundLogger = structlog.get_logger(__name__)


class Keyring:
    """Those of a setting and those of a file. Raises `KeysInvalid` for a file that is broken now;
    one that breaks later changes nothing, so that a slip of an editor locks nobody out.

    `reloaded` is told after each look that found the file changed: how many keys are in force,
    and whether the file could be used.
    """

    def __init__(
        self,
        fixed: Sequence[Key] = (),
        file: Path | None = None,
        *,
        reloaded: Callable[[int, bool], None] = lambda keys, usable: None,
    ) -> None:
        self._fixed = tuple(fixed)
        self._file = file
        self._reloaded = reloaded
        self._seen = self._state()
        self._keys = self._read()
        reloaded(len(self._keys), True)

    def find(self, secret: str) -> Key:
        """The key with this secret. Raises `Unidentified` where none in force has it.

        Every key is compared, each in constant time: how long it takes tells nothing of them.
        """
        given = digest(secret)
        found: Key | None = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, given):
                found = key
        if found is None:
            raise Unidentified("no key in force is this one", reason="unknown")
        if found.expired:
            raise Unidentified("this key has expired", reason="expired")
        return found

    def look(self) -> None:
        """Takes over the keys of a file that has changed since the last look, if it is usable."""
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            self._keys = self._read()
        except KeysInvalid as error:
            _log.error("keys_unusable", problems=error.problems, kept=len(self._keys))
            self._reloaded(len(self._keys), False)
        else:
            _log.info("keys_loaded", keys=[key.name for key in self._keys])
            self._reloaded(len(self._keys), True)

    @asynccontextmanager
    async def kept_fresh(self, every_s: float = POLL_S) -> AsyncIterator[None]:
        """Looks every `every_s` seconds until left."""
        if self._file is None:
            yield
            return
        # A file may lie on a network.
        async with repeated(partial(asyncio.to_thread, self.look), every_s):
            yield

    def _state(self) -> object:
        """Changes with the file, also where it is a link to another by now, or gone."""
        if self._file is None:
            return None
        try:
            status = self._file.stat()
        except OSError as error:
            return error.errno
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> tuple[Key, ...]:
        keys = self._fixed
        if self._file is not None:
            keys += tuple(read_keys(self._file))
        distinct(keys, "keys")
        return keys
