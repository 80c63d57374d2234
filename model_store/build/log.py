"""Who clicked what, in columns: one entry an event, users together, their events in time order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from model_store.prompt import Profile

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Log:
    """user_ids: (users,); user, item, time, scene: (events,).

    `user` points into `user_ids`, `item` is a row of the items. `time` (any unit) and `scene` are
    `None` where the source has none. Make one with `Log.of`, which sorts.
    """

    user_ids: Sequence[str]
    user: Ids
    item: Ids
    time: npt.NDArray[np.float64] | None = None
    scene: npt.NDArray[np.object_] | None = None
    profiles: Mapping[str, Profile] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        user_ids: Sequence[str],
        user: Ids,
        item: Ids,
        time: npt.NDArray[np.float64] | None = None,
        scene: npt.NDArray[np.object_] | None = None,
        profiles: Mapping[str, Profile] | None = None,
    ) -> "Log":
        """Sorts by user, then time; what happened at the same time stays as it came."""
        order = np.lexsort((user,) if time is None else (time, user))
        return cls(user_ids, user, item, time, scene, profiles or {})._take(order)

    def __len__(self) -> int:
        return len(self.item)

    def where(self, kept: npt.NDArray[np.bool_]) -> "Log":
        """The events of a mask (events,)."""
        return self._take(np.flatnonzero(kept))

    def users(self) -> "list[tuple[str, slice]]":
        """Each user who has events, with their place."""
        starts = np.flatnonzero(np.diff(self.user, prepend=-1))
        ends = np.flatnonzero(np.diff(self.user, append=-1)) + 1
        return [
            (self.user_ids[self.user[s]], slice(int(s), int(e)))
            for s, e in zip(starts, ends, strict=True)
        ]

    def core(self, least: int) -> "Log":
        """The `least`-core: users and items with fewer events leave, until none is left to.

        As in the usual preparation of the Amazon data sets (McAuley et al., 2015).
        """
        log = self
        while len(log):
            enough = (np.bincount(log.user) >= least)[log.user]
            enough &= (np.bincount(log.item) >= least)[log.item]
            if enough.all():
                break
            log = log.where(enough)
        return log

    def _take(self, places: Ids) -> "Log":
        return Log(
            self.user_ids,
            self.user[places],
            self.item[places],
            None if self.time is None else self.time[places],
            None if self.scene is None else self.scene[places],
            self.profiles,
        )
