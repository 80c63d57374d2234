"""What experiments see."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge


class ExperimentMetrics:
    """Labels are names that an admin gave."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._exposures = Counter(
            "sidrec_experiment_exposures",
            "Answers that belonged to an arm of an experiment",
            ("experiment", "arm"),
            registry=registry,
        )
        self._skipped = Counter(
            "sidrec_experiment_skipped",
            "Answers whose user belongs to an arm that could not be given here, by the reason",
            ("experiment", "reason"),
            registry=registry,
        )
        self._lost = Counter(
            "sidrec_experiment_lost",
            "Answers and events that no experiment will ever count",
            ("what",),
            registry=registry,
        )
        self._undelivered = Gauge(
            "sidrec_experiment_undelivered",
            "Answers and events that wait to be counted in Redis",
            registry=registry,
        )
        for what in ("answers", "events"):
            self._lost.labels(what)

    def waiting(self, waiting: Callable[[], int]) -> None:
        """`waiting` is asked at each scrape for what is not counted in Redis yet."""
        self._undelivered.set_function(waiting)

    def exposed(self, experiment: str, arm: str) -> None:
        self._exposures.labels(experiment, arm).inc()

    def skipped(self, experiment: str, reason: str) -> None:
        self._skipped.labels(experiment, reason).inc()

    def lost(self, what: str, count: int) -> None:
        self._lost.labels(what).inc(count)

    def gone(self, experiment: str) -> None:
        """Labels of an experiment that is no more are not kept."""
        self._exposures.remove_by_labels({"experiment": experiment})
        self._skipped.remove_by_labels({"experiment": experiment})
