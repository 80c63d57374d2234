"""What every route can reach: made once by the lifespan, handed to each request."""

from dataclasses import dataclass

from starlette.requests import Request

from service.api.admission import Admission
from service.experiments.experiments import Experiments
from service.history import History
from service.holder import Holder
from service.metrics import Metrics
from service.popularity import Popularity
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Service:
    settings: Settings
    holder: Holder
    history: History
    popularity: Popularity
    metrics: Metrics
    admission: Admission
    experiments: Experiments


def service_of(request: Request) -> Service:
    """Called by routes, not declared as their dependency: solving one costs more than the answer
    of some routes."""
    service: Service = request.state.service
    return service
