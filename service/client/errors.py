"""What goes wrong, as exceptions.

ClientError
├── Unreachable       no answer came: nobody listens, the connection broke
│   └── TimedOut      not within the time that the caller gave
├── Unexpected        an answer came that this service does not give
└── Problem           the service said why not; `details` has its words
    ├── InvalidInput  400, 413, 422: `fields` names what is wrong
    ├── Unidentified  401
    ├── Forbidden     403
    ├── NotFound      404
    ├── Conflict      409
    ├── TooOften      429: the key asks more often than it may
    └── Unavailable   502, 503, 504: it may work later
"""

from service.client.answers import ProblemDetails


class ClientError(Exception):
    """Base of everything that the client raises on purpose."""


class Unreachable(ClientError):
    """No answer came; whether the service did anything is not known."""


class TimedOut(Unreachable):
    """No answer came within the time that the caller gave."""


class Unexpected(ClientError):
    """An answer that is not of this service, such as a proxy's page."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Problem(ClientError):
    """The service refused, or failed. `retry_after` is in seconds, where it said so."""

    def __init__(self, details: ProblemDetails, retry_after: float | None = None) -> None:
        super().__init__(f"{details.status} {details.title}: {details.detail}")
        self.details = details
        self.retry_after = retry_after

    @property
    def fields(self) -> dict[str, str]:
        """What is wrong with each field of the request, by its dotted path."""
        return {error.field: error.message for error in self.details.errors}


class InvalidInput(Problem):
    """The request cannot be used; `fields` says what is wrong with which."""


class Unidentified(Problem):
    """No key came with the request, or none that is in force."""


class Forbidden(Problem):
    """The key may not do this."""


class NotFound(Problem):
    """There is no such thing."""


class Conflict(Problem):
    """The request contradicts what stands, or the bundle in service was not trained for it."""


class TooOften(Problem):
    """The key asks more often than it may."""


class Unavailable(Problem):
    """The service cannot do it now."""


_OF_STATUS: dict[int, type[Problem]] = {
    400: InvalidInput,
    401: Unidentified,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: InvalidInput,
    422: InvalidInput,
    429: TooOften,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def problem(details: ProblemDetails, retry_after: float | None) -> Problem:
    """The exception for what the service said."""
    return _OF_STATUS.get(details.status, Problem)(details, retry_after)
