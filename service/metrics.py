"""What Prometheus is told. One registry per application, so that two in a process do not mix."""

from collections import Counter as Counted
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from service.answer import Answer
from service.catalogue.live import CatalogueStats
from service.engine import EngineStats

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LONG_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# A client can invent methods, and each label value is kept for ever.
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class Metrics:
    """Counters and histograms of one application; `in_flight` is asked at each scrape."""

    def __init__(self, in_flight: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "sidrec_http_requests",
            "HTTP requests answered",
            ("route", "method", "status"),
            registry=registry,
        )
        self._latency = Histogram(
            "sidrec_http_request_seconds",
            "Time until an HTTP request was answered",
            ("route", "method"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._stages = Histogram(
            "sidrec_stage_seconds",
            "Time of a stage of a recommendation",
            ("stage",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._recommendations = Counter(
            "sidrec_recommendations", "Recommendations by source", ("source",), registry=registry
        )
        self._fallbacks = Counter(
            "sidrec_fallbacks",
            "Recommendations that are not the model's by the history, by the reason",
            ("reason",),
            registry=registry,
        )
        self._items = Counter(
            "sidrec_recommended_items", "Items by source", ("source",), registry=registry
        )
        self._histories = Counter(
            "sidrec_history_reads", "Stored histories read", ("result",), registry=registry
        )
        self._cached = Counter(
            "sidrec_cached_answers", "Answers that were computed earlier", registry=registry
        )
        self._unknown = Counter(
            "sidrec_unknown_items", "History items not in the bundle", registry=registry
        )
        self._batches = Histogram(
            "sidrec_engine_batch_size",
            "Queries that ran together",
            buckets=_SIZES,
            registry=registry,
        )
        self._queue = Gauge("sidrec_engine_queue_depth", "Queries waiting", registry=registry)
        self._rows = Histogram(
            "sidrec_engine_step_rows",
            "Prefixes that a step of the model carried",
            buckets=_SIZES,
            registry=registry,
        )
        self._prompt = Counter(
            "sidrec_engine_prompt_tokens",
            "Tokens in front of these prefixes, by where their keys came from",
            ("source",),
            registry=registry,
        )
        self._preemptions = Counter(
            "sidrec_engine_preemptions", "Prefixes that lost their cache", registry=registry
        )
        self._refused = Counter(
            "sidrec_refused_requests",
            "Requests refused for their key, by the reason",
            ("reason",),
            registry=registry,
        )
        self._keys = Gauge("sidrec_keys", "API keys in force", registry=registry)
        self._keys_unusable = Gauge(
            "sidrec_keys_file_unusable",
            "1 while the file of keys cannot be used and older ones are in force",
            registry=registry,
        )
        self._popularity_age = Gauge(
            "sidrec_popularity_age_seconds",
            "Time since the popular items were read from Redis",
            registry=registry,
        )
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
            buckets=_LONG_SECONDS,
            registry=registry,
        )
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
            buckets=_SECONDS,
            registry=registry,
        )
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
        Gauge(
            "sidrec_recommendations_in_flight", "Recommendations worked on", registry=registry
        ).set_function(in_flight)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """An HTTP request was answered; `route` is a template, never a path."""
        method = method if method in _METHODS else "other"
        self._requests.labels(route, method, status).inc()
        self._latency.labels(route, method).observe(seconds)

    def recommendation(self, answer: Answer) -> None:
        self._recommendations.labels(answer.source).inc()
        if answer.reason is not None:
            self._fallbacks.labels(answer.reason).inc()
        if answer.stored is not None:
            self._histories.labels(answer.stored).inc()
        for source, items in Counted(pick.source for pick in answer.picks).items():
            self._items.labels(source).inc(items)
        self._unknown.inc(answer.unknown_items)
        self._cached.inc(answer.cached)
        for stage, ms in answer.timing_ms.items():
            self._stages.labels(stage).observe(ms / 1000)

    def refused(self, reason: str) -> None:
        """A request was refused: no key, an unknown or expired one, its scope, its rate."""
        self._refused.labels(reason).inc()

    def keys(self, count: int, usable: bool) -> None:
        """So many keys are in force, and whether their file can be used."""
        self._keys.set(count)
        self._keys_unusable.set(not usable)

    def popularity(self, age: Callable[[], float]) -> None:
        """`age` is asked at each scrape for the seconds since popularity was refreshed."""
        self._popularity_age.set_function(age)

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

    def catalogue(self, stats: CatalogueStats) -> None:
        """What the catalogue is now, and did since the last call."""
        self._catalogue_version.set(stats.version)
        self._catalogue_items.set(stats.items)
        self._unlisted.set(stats.unlisted)
        self._catalogue_age.set(-1 if stats.age_s is None else stats.age_s)
        for seconds in stats.applied_s:
            self._applied.observe(seconds)

    def experiments(self, waiting: Callable[[], int]) -> None:
        """`waiting` is asked at each scrape for what is not counted in Redis yet."""
        self._undelivered.set_function(waiting)

    def experiment_exposed(self, experiment: str, arm: str) -> None:
        self._exposures.labels(experiment, arm).inc()

    def experiment_skipped(self, experiment: str, reason: str) -> None:
        self._skipped.labels(experiment, reason).inc()

    def experiment_lost(self, what: str, count: int) -> None:
        self._lost.labels(what).inc(count)

    def experiment_gone(self, experiment: str) -> None:
        """Labels of an experiment that is no more are not kept."""
        self._exposures.remove_by_labels({"experiment": experiment})
        self._skipped.remove_by_labels({"experiment": experiment})

    def exposition(self, engines: Sequence[EngineStats]) -> bytes:
        """The text that Prometheus scrapes; `engines` is what each did since the last call."""
        self._queue.set(sum(stats.queue_depth for stats in engines))
        for stats in engines:
            self._engine(stats)
        return generate_latest(self._registry)

    def _engine(self, stats: EngineStats) -> None:
        for size in stats.batch_sizes:
            self._batches.observe(size)
        for rows in stats.step_rows:
            self._rows.observe(rows)
        self._prompt.labels("cache").inc(stats.cached_tokens)
        self._prompt.labels("model").inc(stats.prompt_tokens - stats.cached_tokens)
        self._preemptions.inc(stats.preemptions)
