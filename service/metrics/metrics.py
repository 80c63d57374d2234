"""All metrics of one application, by what they are about."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest

from service.metrics.answers import AnswerMetrics
from service.metrics.catalogue import CatalogueMetrics
from service.metrics.engine import EngineMetrics
from service.metrics.experiments import ExperimentMetrics
from service.metrics.http import HttpMetrics
from service.metrics.models import ModelMetrics


class Metrics:
    """One registry per application, so that two in a process do not mix.

    `in_flight` is asked at each scrape, and `limit` is how many of them there may be.
    """

    def __init__(self, in_flight: Callable[[], int], limit: int) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Gauge(
            "sidrec_recommendations_in_flight", "Recommendations worked on", registry=registry
        ).set_function(in_flight)
        Gauge(
            "sidrec_recommendations_in_flight_limit",
            "Recommendations that are worked on at once at most",
            registry=registry,
        ).set(limit)
        self.http = HttpMetrics(registry)
        self.answers = AnswerMetrics(registry)
        self.engine = EngineMetrics(registry)
        self.models = ModelMetrics(registry)
        self.catalogue = CatalogueMetrics(registry)
        self.experiments = ExperimentMetrics(registry)

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._registry)
