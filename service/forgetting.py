"""Who keeps something of users: the one list of what is removed with a user."""

from collections.abc import Sequence
from typing import Protocol


class Keeper(Protocol):
    """Keeps something that is found by the id of a user."""

    async def forget(self, user_id: str) -> bool:
        """Removes all of it; whether there was anything. Raises HistoryUnavailable."""


async def forget(user_id: str, keepers: Sequence[Keeper]) -> bool:
    """Has each of `keepers` forget a user, in their order; whether anyone knew of one.

    Raises HistoryUnavailable where one could not; repeat it, for what is gone stays gone.
    """
    knew = [await keeper.forget(user_id) for keeper in keepers]
    return any(knew)
