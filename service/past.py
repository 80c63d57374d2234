"""What is known of a user's past when a request is answered."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from model_store.prompt import Profile
from service.deadline import Deadline
from service.eligibility.policy import Seen
from service.errors import DeadlinePassed, HistoryUnavailable
from service.history import Event, History, Known

Stored = Literal["hit", "miss", "unavailable"]


@dataclass(frozen=True, slots=True)
class Past:
    """What came with the request, and what is stored.

    given: item ids, oldest first; None where the request left it to what is stored
    known: all that is stored; None where it was not read
    error: why it could not be read
    """

    given: Sequence[str] | None
    known: Known | None = None
    error: HistoryUnavailable | DeadlinePassed | None = None

    @classmethod
    async def read(
        cls,
        history: History,
        user_id: str | None,
        given: Sequence[str] | None,
        deadline: Deadline,
    ) -> "Past":
        """Asks Redis for a user, if there is one, and until the deadline. Never raises for a
        Redis that does not answer."""
        if user_id is None:
            return cls(given)
        try:
            return cls(given, await deadline.wait(history.read(user_id)))
        except (HistoryUnavailable, DeadlinePassed) as error:
            return cls(given, error=error)

    def item_ids(self) -> Sequence[str]:
        """The history of the prompt, oldest first; empty where it is `lost`."""
        return [event.item_id for event in self.events] if self.given is None else self.given

    @property
    def lost(self) -> bool:
        """Whether the prompt needs what could not be read."""
        return self.given is None and self.error is not None

    @property
    def events(self) -> Sequence[Event]:
        return () if self.known is None else self.known.events

    @property
    def profile(self) -> Profile:
        return {} if self.known is None else self.known.profile

    @property
    def stored(self) -> Stored | None:
        """What reading gave; None where nothing was read."""
        if self.error is not None:
            return "unavailable"
        if self.known is None:
            return None
        return "hit" if self.events else "miss"

    def seen(self, which: Seen, purchase_types: Collection[str]) -> set[str]:
        """The ids of items not to be shown again, whether or not a prompt has room for them.

        Items that came with the request carry no type, so none of them counts as purchased.
        """
        events = self.events
        match which:
            case "nothing":
                return set()
            case "purchased":
                return {event.item_id for event in events if event.type in purchase_types}
            case "history":
                return {*(self.given or ()), *(event.item_id for event in events)}
