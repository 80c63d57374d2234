"""Which models there are, and how they change."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.metrics.buckets import LONG_SECONDS


class ModelMetrics:
    """Bundles that are loaded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._bundles = Gauge(
            "sidrec_bundle_info",
            "The bundles that are loaded",
            ("name", "version", "engine"),
            registry=registry,
        )
        self._active = Gauge(
            "sidrec_bundle_active",
            "Whether a loaded bundle answers requests that name none",
            ("name", "version"),
            registry=registry,
        )
        self._swaps = Counter(
            "sidrec_model_swaps",
            "Times that another bundle became active",
            ("action",),
            registry=registry,
        )
        self._loads = Histogram(
            "sidrec_model_load_seconds",
            "Time to load a bundle beside others, by how that ended",
            ("outcome",),
            buckets=LONG_SECONDS,
            registry=registry,
        )

        for action in ("activate", "rollback"):
            self._swaps.labels(action)
        for outcome in ("loaded", "failed"):
            self._loads.labels(outcome)

    def bundles(
        self, loaded: Iterable[tuple[str, int]], active: tuple[str, int], engine: str
    ) -> None:
        """From now on these are loaded, and no others."""
        self._bundles.clear()
        self._active.clear()
        for name, version in loaded:
            self._bundles.labels(name, version, engine).set(1)
            self._active.labels(name, version).set((name, version) == active)

    def swapped(self, action: Literal["activate", "rollback"]) -> None:
        """Another bundle has become active."""
        self._swaps.labels(action).inc()

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Measures the loading of a bundle, and whether it fails."""
        began, outcome = perf_counter(), "failed"
        try:
            yield
            outcome = "loaded"
        finally:
            self._loads.labels(outcome).observe(perf_counter() - began)
