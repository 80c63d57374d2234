"""A client of the service, for programs in Python: async, typed, patient where that is safe.

    from service.client import Recommender

    async with Recommender("http://127.0.0.1:8000", key="sidrec_…") as recommender:
        answer = await recommender.recommend("mei", k=5)

It speaks HTTP and nothing else: importing it loads neither torch nor the service.
"""

from service.client.answers import (
    ArmName,
    BatchOutcome,
    BatchResult,
    BatchResults,
    BatchWritten,
    BeamLevel,
    BeamPrefix,
    BundleName,
    Description,
    EventsAccepted,
    FieldError,
    Item,
    ItemWritten,
    Level,
    ProblemDetails,
    Recommendations,
    RecommendedItem,
    SearchResults,
    StoredEvent,
    UserHistory,
    UserProfile,
)
from service.client.errors import (
    ClientError,
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    Problem,
    TimedOut,
    TooOften,
    Unavailable,
    Unexpected,
    Unidentified,
    Unreachable,
)
from service.client.recommender import Recommender
from service.client.wants import Ask, Change, Event, NamedAsk, SearchAsk, SimilarAsk, Version

__all__ = [
    "ArmName",
    "Ask",
    "BatchOutcome",
    "BatchResult",
    "BatchResults",
    "BatchWritten",
    "BeamLevel",
    "BeamPrefix",
    "BundleName",
    "Change",
    "ClientError",
    "Conflict",
    "Description",
    "Event",
    "EventsAccepted",
    "FieldError",
    "Forbidden",
    "InvalidInput",
    "Item",
    "ItemWritten",
    "Level",
    "NamedAsk",
    "NotFound",
    "Problem",
    "ProblemDetails",
    "Recommendations",
    "RecommendedItem",
    "Recommender",
    "SearchAsk",
    "SearchResults",
    "SimilarAsk",
    "StoredEvent",
    "TimedOut",
    "TooOften",
    "Unavailable",
    "Unexpected",
    "Unidentified",
    "Unreachable",
    "UserHistory",
    "UserProfile",
    "Version",
]
