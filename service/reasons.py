"""Why the model did not answer."""

from service.errors import DeadlinePassed, EngineDead, EngineError, HistoryUnavailable, Overloaded
from service.sources import Reason


class NoHistory(Exception):
    """Nothing is left to build a prompt from."""


class NothingEligible(Exception):
    """There is no item that the answer may contain."""


def reason_of(error: Exception | None) -> Reason:
    """What the answer says of it."""
    match error:
        case HistoryUnavailable():
            return "history_unavailable"
        case DeadlinePassed():
            return "deadline"
        case Overloaded():
            return "overloaded"
        case EngineDead():
            return "engine_dead"
        case EngineError():
            return "engine_error"
        case NothingEligible():
            return "nothing_eligible"
        case _:
            return "no_history"
