"""All metrics of one application, by what they are about."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest

from service.engine_queue import EngineQueue
from service.metrics.answers import AnswerMetrics
from service.metrics.catalogue import CatalogueMetrics
from service.metrics.engine import EngineMetrics
from service.metrics.experiments import ExperimentMetrics
from service.metrics.http import HttpMetrics
from service.metrics.models import ModelMetrics


class Metrics:
    """One registry per application, so that two in a process do not mix.

    `in_flight` and `queue` are asked at each scrape; `limit` is how many may be in flight.
    """

    def __init__(self, in_flight: Callable[[], int], limit: int, queue: EngineQueue) -> None:
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
        for name, documentation, now in (
            ("under_way", "Searches that run or wait for the engine", lambda: queue.under_way),
            ("limit", "Searches that may be under way", lambda: queue.limit),
            ("wait_seconds", "Time that one more would wait", lambda: queue.wait),
        ):
            gauge = Gauge(f"sidrec_queue_{name}", documentation, registry=registry)
            gauge.set_function(now)
        self.http = HttpMetrics(registry)
        self.answers = AnswerMetrics(registry)
        self.engine = EngineMetrics(registry)
        self.models = ModelMetrics(registry)
        self.catalogue = CatalogueMetrics(registry)
        self.experiments = ExperimentMetrics(registry)

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._registry)
