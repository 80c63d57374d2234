"""What the catalogue is, and how fresh."""

from prometheus_client import CollectorRegistry, Gauge, Histogram

from service.catalogue.live import CatalogueStats
from service.metrics.buckets import SECONDS


class CatalogueMetrics:
    """The catalogue of the active bundle."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._catalogue_version = Gauge(
            "sidrec_catalogue_version", "Number of the last change in force", registry=registry
        )
        self._catalogue_items = Gauge(
            "sidrec_catalogue_items", "Items there are", registry=registry
        )
        self._unlisted = Gauge(
            "sidrec_catalogue_unlisted_rows", "Places kept of deleted items", registry=registry
        )
        self._catalogue_age = Gauge(
            "sidrec_catalogue_age_seconds",
            "Time since all changes in Redis were in force here; -1 if they never were",
            registry=registry,
        )
        self._applied = Histogram(
            "sidrec_catalogue_apply_seconds",
            "Time to put changes in force",
            buckets=SECONDS,
            registry=registry,
        )

    def now(self, stats: CatalogueStats) -> None:
        """What the catalogue is now, and did since the last call."""
        self._catalogue_version.set(stats.version)
        self._catalogue_items.set(stats.items)
        self._unlisted.set(stats.unlisted)
        self._catalogue_age.set(-1 if stats.age_s is None else stats.age_s)
        for seconds in stats.applied_s:
            self._applied.observe(seconds)
