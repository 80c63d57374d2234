"""The beam of a search in the words of a bundle: what stood in it, and what fell out of it."""

from dataclasses import dataclass

from model_store.sid import SidSpec
from model_store.sid.spec import END
from service.engine.trace import Fate, Trace


@dataclass(frozen=True, slots=True)
class BeamPrefix:
    """A SID up to some level, and what became of it there.

    prefix:          its text, as the SIDs of items have it; at the last level it is all of one
    token:           the one added last; None where the SID was complete without
    parent:          the place of the prefix one token shorter in the level before, or None
    log_probability: of the token, given the parent
    score:           the sum from the first level on
    eligible_items:  items that might have been shown under it
    """

    prefix: str
    token: str | None
    parent: int | None
    log_probability: float
    score: float
    fate: Fate
    eligible_items: int


@dataclass(frozen=True, slots=True)
class BeamLevel:
    """One level: `considered` prefixes, of which `removed` had no eligible item, and those of them
    that are worth showing."""

    level: str
    width: int
    considered: int
    removed: int
    prefixes: tuple[BeamPrefix, ...]


def drawn(trace: Trace | None, spec: SidSpec) -> tuple[BeamLevel, ...] | None:
    """The levels of a search that has ended; None where nobody asked."""
    if trace is None:
        return None
    levels: list[BeamLevel] = []
    above: list[tuple[int, ...]] = [()]
    for level, traced in zip(spec.levels, trace.levels, strict=True):
        paths = [(*above[one.parent or 0], one.code) for one in traced.prefixes]
        last = level is spec.levels[-1]
        prefixes = tuple(
            BeamPrefix(
                spec.format(path) if last else spec.format(path).removesuffix(spec.closing),
                None if one.code == END else level.token(one.code),
                one.parent,
                one.gain,
                one.score,
                one.fate,
                one.eligible_items,
            )
            for path, one in zip(paths, traced.prefixes, strict=True)
        )
        counts = (traced.width, traced.considered, traced.removed)
        levels.append(BeamLevel(level.name, *counts, prefixes))
        above = paths
    return tuple(levels)
