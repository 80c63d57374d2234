"""What every route can reach: made once by the lifespan, handed to each request."""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from structlog.contextvars import bind_contextvars

from service.api.admission import Admission
from service.api.guard import Guard
from service.engine_queue import EngineQueue
from service.experiments.experiments import Experiments
from service.forgetting import Keeper
from service.history import History
from service.holder import Holder
from service.metrics import Metrics
from service.models import Models
from service.popularity import Popularity
from service.pseudonyms import Pseudonyms
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Service:
    settings: Settings
    holder: Holder
    models: Models
    history: History
    popularity: Popularity
    metrics: Metrics
    admission: Admission
    queue: EngineQueue
    guard: Guard
    experiments: Experiments
    keepers: Sequence[Keeper]
    pseudonyms: Pseudonyms


def service_of(request: Request) -> Service:
    """Called by routes, not declared as their dependency: solving one costs more than the answer
    of some routes."""
    service: Service = request.state.service
    return service


def service_about(request: Request, user_id: str) -> Service:
    """As `service_of`; from now on the log lines of the request say which user it is about."""
    service = service_of(request)
    bind_contextvars(user=service.pseudonyms.of(user_id))
    return service


def most(request: Request, of_service: int) -> int:
    """How many items a request may carry: what the service takes, or less for a key with a limit of
    its own."""
    of_key: int | None = request.state.batch
    return of_service if of_key is None else min(of_service, of_key)


def caller_of(request: Request) -> str:
    """Whose request it is, among those who share the service; all strangers are one."""
    caller: str = request.state.principal
    return caller
