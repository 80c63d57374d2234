"""What the service says of its own stages while the load ran: the difference of its metrics.

Where several replicas stand behind one address, each keeps its own metrics: name them all. Counts
that went down come from a replica that was started anew, or from another one.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from bench.connection import Connection, said

_STAGES = "sidrec_stage_seconds"
_BATCHES = "sidrec_engine_batch_size"


class NotTold(Exception):
    """The service does not show its metrics, or not such that they help; says why."""


@dataclass(slots=True)
class Histogram:
    """Counts of values up to each bound, cumulative, and their sum."""

    up_to: dict[float, float] = field(default_factory=lambda: defaultdict(float))
    total: float = 0.0

    @property
    def count(self) -> float:
        return self.up_to.get(math.inf, 0.0)

    def since(self, before: "Histogram") -> "Histogram":
        """Raises `NotTold` for counts that went down."""
        if any(self.up_to[bound] < count for bound, count in before.up_to.items()):
            raise NotTold("counts in the metrics went down: name each replica by --metrics")
        left = {bound: count - before.up_to.get(bound, 0) for bound, count in self.up_to.items()}
        return Histogram(left, self.total - before.total)

    def percentile(self, share: float) -> float:
        """Interpolated within the bucket, as Prometheus does it."""
        wanted, below, low = share / 100 * self.count, 0.0, 0.0
        for bound, count in sorted(self.up_to.items()):
            if count >= wanted:
                if math.isinf(bound) or count == below:
                    return low
                return low + (bound - low) * (wanted - below) / (count - below)
            low, below = bound, count
        return low


Seen = Mapping[str, Histogram]


def look(urls: Sequence[str], key: str | None) -> Seen:
    """Histograms at present: of each stage by its name, and "" of the engine's batches; those of
    all `urls` together. Raises `NotTold`."""
    found: dict[str, Histogram] = defaultdict(Histogram)
    for url in urls:
        for sample in _samples(url, key):
            name, labels, value = sample.name, sample.labels, sample.value
            of = found[labels.get("stage", "")]
            if name.endswith("_bucket"):
                of.up_to[float(labels["le"])] += value
            elif name.endswith("_sum"):
                of.total += value
    return found


def compared(before: Seen, after: Seen) -> dict[str, Any]:
    """What happened between two looks: rows of stages, and the mean size of the engine's batches.

    Raises `NotTold`.
    """
    passed = {name: now.since(before.get(name, Histogram())) for name, now in after.items()}
    batches = passed.pop("", Histogram())
    return {
        "batch_size": batches.total / batches.count if batches.count else None,
        "stages": [
            {
                "stage": name,
                "count": int(stage.count),
                "mean_ms": stage.total / stage.count * 1e3,
                **{f"p{share}_ms": stage.percentile(share) * 1e3 for share in (50, 95, 99)},
            }
            for name, stage in passed.items()
            if stage.count
        ],
    }


def _samples(url: str, key: str | None) -> Iterable[Any]:
    try:
        with Connection(url, key) as connection:
            status, body = connection.ask("GET", "/metrics")
    except OSError as error:
        raise NotTold(f"{url}/metrics: {error}") from error
    if status != 200:
        raise NotTold(f"{url}/metrics was answered with {status}: {said(body)}")
    try:
        families = list(text_string_to_metric_families(body.decode()))
    except ValueError as error:
        raise NotTold(f"{url}/metrics is not what Prometheus reads: {error}") from error
    return [
        sample
        for family in families
        if family.name in (_STAGES, _BATCHES)
        for sample in family.samples
    ]
