"""What a deployment keeps out of every answer, whatever a request asks for."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from service.eligibility.filter import Filter

Seen = Literal["nothing", "purchased", "history"]
"""Which items of a user's past are not shown again: none, those bought, all of them."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The defaults and rules of a deployment.

    exclude_seen:   for requests that do not say
    purchase_types: types of events that count as a purchase
    rules:          what every item of every answer must satisfy
    cache_bytes:    that compiled filters may take
    """

    exclude_seen: Seen = "purchased"
    purchase_types: Collection[str] = ("purchase",)
    rules: Filter | None = None
    cache_bytes: int = 64 << 20
