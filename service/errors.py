"""The tree of domain errors. It knows no HTTP: `service.api.problems` maps kinds to statuses.

SidrecError
├── InvalidInput          a value that the caller sent cannot be used; names the field
│   └── Conflict          it contradicts what stands
├── NotFound              the thing named does not exist
├── NotTrained            the bundle in service never learnt what was asked of it
├── ModelNotLoaded        the version named is not loaded here
├── ModelConflict         what was asked does not fit what is loaded and active at present
├── ModelUnusable         a version that was found cannot be served, and nothing was changed
├── DoesNotFit            there is not the memory for one more version
├── StoreUnavailable      the store of bundles does not answer
├── HistoryUnavailable    the history store (Redis) does not answer
├── CatalogueUnavailable  the store of the catalogue's changes (Redis) does not answer
├── ExperimentsUnavailable  the store of experiments (Redis) does not answer
├── Unidentified          no key came with the request, or none that is in force
├── Forbidden             the key may not do this
├── TooOften              the key asks more often than it may
├── Overloaded            more work than this process admits
└── EngineError           the engine could not answer this query
    ├── DeadlinePassed    it was not started in time
    └── EngineDead        the engine will not answer any query again
"""

from collections.abc import Sequence


class SidrecError(Exception):
    """Base of everything that the service raises on purpose."""


class InvalidInput(SidrecError):
    """A value that the caller sent cannot be used.

    `field` is a dotted path into the request (`history.3`), `reason` a sentence for its author.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class Conflict(InvalidInput):
    """A value that is fine by itself contradicts what stands already."""


class NotFound(SidrecError):
    """The thing named in the request does not exist."""


class NotTrained(SidrecError):
    """The bundle in service never learnt what was asked of it; another one may have."""


class ModelNotLoaded(SidrecError):
    """The version named is not loaded in this process; others are."""


class ModelConflict(SidrecError):
    """What was asked does not fit what is loaded and active at present."""


class ModelUnusable(SidrecError):
    """A version that was found cannot be served: it is damaged, or the engine cannot run it.

    Whatever was in service still is, and nothing is left of the attempt. `problems` has one line
    for each reason.
    """

    def __init__(self, version: str, problems: Sequence[str]) -> None:
        super().__init__(f"{version}: {'; '.join(problems)}")
        self.problems = list(problems)


class DoesNotFit(SidrecError):
    """There is not the memory for one more version; says what it needs and what there is."""


class StoreUnavailable(SidrecError):
    """The store of bundles does not answer."""


class HistoryUnavailable(SidrecError):
    """The history store does not answer; nothing was acknowledged."""


class CatalogueUnavailable(SidrecError):
    """The store of the catalogue's changes does not answer; nothing was acknowledged."""


class Unidentified(SidrecError):
    """No key came with the request, or none that is in force: `reason` is missing, unknown or
    expired."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Forbidden(SidrecError):
    """The key that came with the request lacks `scope`."""

    def __init__(self, message: str, scope: str) -> None:
        super().__init__(message)
        self.scope = scope


class TooOften(SidrecError):
    """The key asks more often than it may; retry after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ExperimentsUnavailable(SidrecError):
    """The store of experiments does not answer; nothing was acknowledged."""


class Overloaded(SidrecError):
    """Too much work is under way to admit more; retry after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EngineError(SidrecError):
    """The engine could not answer this query."""


class DeadlinePassed(EngineError):
    """The query's deadline passed before it could be started, or would have."""


class EngineDead(EngineError):
    """The engine has stopped; every query in flight and to come ends with this error."""
