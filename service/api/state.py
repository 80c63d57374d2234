"""What every route can reach: made once by the lifespan, handed to each request."""

from dataclasses import dataclass

from starlette.requests import Request

from service.api.admission import Admission
from service.api.guard import Guard
from service.experiments.experiments import Experiments
from service.history import History
from service.holder import Holder
from service.metrics import Metrics
from service.models import Models
from service.popularity import Popularity
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
    guard: Guard
    experiments: Experiments


def service_of(request: Request) -> Service:
    """Called by routes, not declared as their dependency: solving one costs more than the answer
    of some routes."""
    service: Service = request.state.service
    return service


def most(request: Request, of_service: int) -> int:
    """How many items a request may carry: what the service takes, or less for a key with a limit of
    its own."""
    of_key: int | None = request.state.batch
    return of_service if of_key is None else min(of_service, of_key)
