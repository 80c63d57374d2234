"""What is known of a user's past when a request is answered."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import structlog
from structlog.typing import FilteringBoundLogger

from service.deadline import Deadline
from service.eligibility.policy import Seen
from service.errors import DeadlinePassed, HistoryUnavailable
from service.history import Event, History, Known

Stored = Literal["hit", "miss", "unavailable"]

_log: FilteringBoundLogger = structlog.get_logger(__name__)


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
        *,
        needed: bool,
        deadline: Deadline,
    ) -> "Past":
        """Asks Redis where the prompt depends on it, or `needed` says that something else does.
        Never raises HistoryUnavailable or DeadlinePassed."""
        if user_id is None or (given is not None and not needed):
            return cls(given)
        try:
            return cls(given, await deadline.wait(history.read(user_id)))
        except (HistoryUnavailable, DeadlinePassed) as error:
            _log.warning("history_unread", error=str(error))
            return cls(given, error=error)

    @property
    def remembered(self) -> bool:
        """Whether anything is stored that an answer may follow from."""
        return bool(self.events or self.profile)

    @property
    def events(self) -> Sequence[Event]:
        return () if self.known is None else self.known.events

    @property
    def profile(self) -> Mapping[str, str]:
        """The stored one."""
        return {} if self.known is None else self.known.profile

    @property
    def item_ids(self) -> Sequence[str]:
        """The history of the prompt, oldest first, as far as it is known."""
        return [event.item_id for event in self.events] if self.given is None else self.given

    @property
    def lost(self) -> bool:
        """Whether the history of the prompt could not be read."""
        return self.error is not None and self.given is None

    @property
    def stored(self) -> Stored | None:
        """What reading gave; None where nothing was read."""
        if self.error is not None:
            return "unavailable"
        if self.known is None:
            return None
        return "hit" if self.known.events else "miss"

    @property
    def age_s(self) -> float | None:
        """Seconds since the newest stored event, at least 0; None where none is known."""
        if not self.events:
            return None
        return max(0.0, (datetime.now(UTC) - self.events[-1].timestamp).total_seconds())

    def seen(self, which: Seen, purchase_types: Collection[str]) -> set[str]:
        """The ids of items not to be shown again, whether or not a prompt has room for them.

        Items that came with the request carry no type, so none of them counts as purchased.
        """
        match which:
            case "nothing":
                return set()
            case "purchased":
                return {event.item_id for event in self.events if event.type in purchase_types}
            case "history":
                return {*(self.given or ()), *(event.item_id for event in self.events)}
