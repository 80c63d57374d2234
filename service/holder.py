"""What is loaded: bundles with their engines, of which one is active. For one event loop.

A request takes one with `Holder.take` and stays with it to its end, whatever becomes active
meanwhile. Who is with one is counted, so that a version leaves only when nobody is any more.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from model_store.bundle import Bundle
from service.catalogue.live import LiveCatalogue
from service.engine import Engine
from service.errors import ModelConflict, ModelNotLoaded
from service.memory import Need
from service.recommender import Recommender
from service.titles import Titles


class Version(NamedTuple):
    """A bundle's name and number, which together say which one it is."""

    name: str
    number: int

    def __str__(self) -> str:
        return f"{self.name} {self.number}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """When it was, how long that took, and what it holds in memory by its sizes."""

    at: datetime
    seconds: float
    need: Need


@dataclass(frozen=True, slots=True)
class InService:
    """A bundle that answers."""

    bundle: Bundle
    engine: Engine
    recommender: Recommender
    titles: Titles
    catalogue: LiveCatalogue
    loaded: Loaded

    @property
    def version(self) -> Version:
        return Version(self.bundle.name, self.bundle.version)

    async def close(self) -> None:
        """Frees what it holds; queries still waiting end with `EngineDead`."""
        await self.catalogue.close()
        await asyncio.to_thread(self.engine.close)


@dataclass(slots=True)
class _Place:
    """A loaded one, and how many requests are with it. One that leaves takes no new ones."""

    model: InService
    requests: int = 0
    leaves: bool = False
    idle: asyncio.Event = field(default_factory=asyncio.Event)


class Holder:
    """Holds what is loaded, `first` active."""

    def __init__(self, first: InService) -> None:
        self._places = {first.version: _Place(first)}
        self._active = first
        self._before: list[Version] = []
        self._closed = False

    @property
    def current(self) -> InService:
        """The active one. Whoever awaits while using it calls `take` instead."""
        return self._active

    @property
    def previous(self) -> Version | None:
        """What a rollback goes back to; None where nothing that is loaded was active before."""
        return self._before[-1] if self._before else None

    @property
    def loaded(self) -> list[InService]:
        """All of them, in the order in which they were loaded."""
        return [place.model for place in self._places.values()]

    def get(self, name: str, number: int) -> InService:
        """A loaded version. Raises `ModelNotLoaded`; so for one that is about to leave."""
        return self._place(Version(name, number)).model

    def requests(self, model: InService) -> int:
        """How many are with it at present."""
        return self._places[model.version].requests

    @contextmanager
    def take(self, version: Version | None = None) -> Iterator[InService]:
        """A loaded version, by default the active one, which stays loaded until the block ends.

        Raises `ModelNotLoaded`.
        """
        place = self._place(version or self._active.version)
        place.requests += 1
        try:
            yield place.model
        finally:
            place.requests -= 1
            if not place.requests:
                place.idle.set()

    def add(self, model: InService) -> None:
        """Raises `ModelConflict` where this version is there already, or all have been freed."""
        if self._closed:
            raise ModelConflict("the service stops")
        if model.version in self._places:
            raise ModelConflict(f"{model.version} is loaded already")
        self._places[model.version] = _Place(model)

    def activate(self, version: Version, *, back: bool = False) -> None:
        """From now on requests that name no version take this one. Where it goes `back`, a rollback
        will not return to the one before. Raises `ModelNotLoaded`."""
        model = self._place(version).model
        if model is self._active:
            return
        self._before = [before for before in self._before if before != version]
        if not back:
            self._before.append(self._active.version)
        self._active = model

    async def remove(self, version: Version, *, within_s: float) -> None:
        """Closes a version when the requests that are with it have ended; new ones do not get it.

        Raises `ModelNotLoaded`, and `ModelConflict` for the active one, or where requests are with
        it for longer than `within_s`: then it stays.
        """
        place = self._place(version)
        if place.model is self._active:
            raise ModelConflict(f"{version} is active: activate another one first")
        place.leaves = True
        try:
            await _idle_within(place, within_s)
            if place.requests:
                raise ModelConflict(f"{place.requests} requests are still with {version}")
        except BaseException:
            place.leaves = False
            raise
        del self._places[version]
        self._before = [before for before in self._before if before != version]
        await place.model.close()

    async def close(self) -> None:
        """Frees all there are, whoever is with them."""
        self._closed = True
        while self._places:
            _, place = self._places.popitem()
            await place.model.close()

    def _place(self, version: Version) -> _Place:
        place = self._places.get(version)
        if place is None or place.leaves:
            there = ", ".join(str(v) for v, p in self._places.items() if not p.leaves)
            raise ModelNotLoaded(f"{version} is not loaded, only {there}")
        return place


async def _idle_within(place: _Place, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while place.requests:
                place.idle.clear()
                await place.idle.wait()
