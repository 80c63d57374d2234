"""How the engine is used."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.engine import EngineStats
from service.metrics.buckets import SIZES


class EngineMetrics:
    """All engines of the process together."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._batches = Histogram(
            "sidrec_engine_batch_size",
            "Queries that ran together",
            buckets=SIZES,
            registry=registry,
        )
        self._alive = Gauge(
            "sidrec_engine_alive", "Whether the engine answers at all", registry=registry
        )
        self._queue = Gauge("sidrec_engine_queue_depth", "Queries waiting", registry=registry)
        self._rows = Histogram(
            "sidrec_engine_step_rows",
            "Prefixes that a step of the model carried",
            buckets=SIZES,
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

    def ran(self, engines: Sequence[EngineStats], *, alive: bool) -> None:
        """What each engine did since the last call, and whether the active one still answers."""
        self._alive.set(alive)
        self._queue.set(sum(stats.queue_depth for stats in engines))
        for stats in engines:
            self._add(stats)

    def _add(self, stats: EngineStats) -> None:
        for size in stats.batch_sizes:
            self._batches.observe(size)
        for rows in stats.step_rows:
            self._rows.observe(rows)
        self._prompt.labels("cache").inc(stats.cached_tokens)
        self._prompt.labels("model").inc(stats.prompt_tokens - stats.cached_tokens)
        self._preemptions.inc(stats.preemptions)
