"""Where the versions come from that this process can serve: a store, or one folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from model_store.errors import StoreError
from model_store.remote import AnyStore, open_store
from model_store.versions import CHAMPION
from service.errors import ModelConflict, NotFound, StoreUnavailable
from service.holder import Version
from service.settings import Settings


class Origin(Protocol):
    """Every method may take its time: not on a loop."""

    def first(self) -> Path:
        """The folder of what is served at the start. Raises `NotFound` and `StoreUnavailable`."""
        ...

    def resolve(self, name: str | None, number: int | None) -> Version:
        """The version that is meant; where it names no number, the champion. Raises `NotFound`,
        `StoreUnavailable`, and `ModelConflict` where there is nothing but what is served."""
        ...

    def fetch(self, version: Version) -> Path:
        """The local folder of a version. Raises as `resolve`, and `BundleError` for one that does
        not arrive whole."""
        ...


class FromStore:
    """Versions in a store; `name` is that of the bundle, None: the only one there."""

    def __init__(self, address: str, name: str | None) -> None:
        with _answers(address):
            self._store: AnyStore = open_store(address)
        self._address = address
        self._name = name

    def first(self) -> Path:
        return self.fetch(self.resolve(None, None))

    def resolve(self, name: str | None, number: int | None) -> Version:
        with _answers(self._address):
            name = name or self._name or self._only_name()
            return Version(*self._store.resolve(f"{name}@{number or CHAMPION}"))

    def fetch(self, version: Version) -> Path:
        with _answers(self._address):
            return self._store.fetch(f"{version.name}@{version.number}")

    def _only_name(self) -> str:
        names = self._store.names()
        if len(names) != 1:
            there = f"{', '.join(names)}: set SIDREC_MODEL" if names else "no bundle"
            raise NotFound(f"store {self._address} has {there}")
        return names[0]


class FromFolder:
    """The bundle in one folder, and no other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def first(self) -> Path:
        return self._folder

    def resolve(self, name: str | None, number: int | None) -> Version:
        raise ModelConflict("only a service with a store (SIDREC_STORE) can load other versions")

    def fetch(self, version: Version) -> Path:
        return self._folder


def origin_of(settings: Settings) -> Origin:
    """Raises `StoreUnavailable` for an address that nothing can read."""
    if settings.store is None:
        return FromFolder(settings.bundle)
    return FromStore(settings.store, settings.model)


@contextmanager
def _answers(address: str) -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise NotFound(f"store {address}: {error}") from error
    except OSError as error:
        raise StoreUnavailable(f"store {address}: {error or type(error).__name__}") from error
