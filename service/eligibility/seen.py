"""Which items a user has seen, in the sense of `exclude_seen`."""

from collections.abc import Collection, Sequence

from service.eligibility.policy import Seen
from service.history import Event


def seen_items(
    which: Seen,
    history: Sequence[str] | None,
    events: Sequence[Event],
    purchase_types: Collection[str],
) -> set[str]:
    """The ids of items not to be shown again.

    history: item ids that came with the request; they carry no type, so none counts as purchased
    events:  everything that is stored of the user, whether or not a prompt has room for it
    """
    if which == "nothing":
        return set()
    if which == "purchased":
        return {event.item_id for event in events if event.type in purchase_types}
    return {*(history or ()), *(event.item_id for event in events)}
