"""What is known of a user's past when a request is answered."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from service.eligibility.policy import Seen
from service.errors import HistoryUnavailable
from service.history import Event, History

Stored = Literal["hit", "miss", "unavailable"]


@dataclass(frozen=True, slots=True)
class Past:
    """What came with the request, and what is stored.

    given:  item ids, oldest first; None where the request left it to what is stored
    events: all that is stored; None where it was not read
    error:  why it could not be read
    """

    given: Sequence[str] | None
    events: Sequence[Event] | None = None
    error: HistoryUnavailable | None = None

    @classmethod
    async def read(
        cls, history: History, user_id: str | None, given: Sequence[str] | None, which: Seen
    ) -> "Past":
        """Asks Redis where the prompt, or `which` items are seen, depends on it. Never raises
        HistoryUnavailable."""
        if user_id is None or (given is not None and which == "nothing"):
            return cls(given)
        try:
            return cls(given, await history.read(user_id))
        except HistoryUnavailable as error:
            return cls(given, error=error)

    def item_ids(self) -> Sequence[str]:
        """The history of the prompt, oldest first. Raises HistoryUnavailable."""
        if self.given is not None:
            return self.given
        if self.error is not None:
            raise self.error
        return [event.item_id for event in self.events or ()]

    @property
    def stored(self) -> Stored | None:
        """What reading gave; None where nothing was read."""
        if self.error is not None:
            return "unavailable"
        if self.events is None:
            return None
        return "hit" if self.events else "miss"

    def seen(self, which: Seen, purchase_types: Collection[str]) -> set[str]:
        """The ids of items not to be shown again, whether or not a prompt has room for them.

        Items that came with the request carry no type, so none of them counts as purchased.
        """
        events = self.events or ()
        match which:
            case "nothing":
                return set()
            case "purchased":
                return {event.item_id for event in events if event.type in purchase_types}
            case "history":
                return {*(self.given or ()), *(event.item_id for event in events)}
