"""What must hold of a load test, so that it can serve in a pipeline."""

from dataclasses import dataclass

from bench.load.findings import percentile
from bench.load.samples import Samples
from bench.timing import digits


@dataclass(frozen=True, slots=True)
class Checked:
    """One limit, what was found, and whether it holds."""

    name: str
    limit: float
    found: float | None
    unit: str

    @property
    def holds(self) -> bool:
        """What was not found at all holds no limit."""
        return self.found is not None and self.found <= self.limit

    def __str__(self) -> str:
        found = "unknown" if self.found is None else self._said(self.found)
        return f"{self.name} {found}, at most {self._said(self.limit)}"

    def _said(self, value: float) -> str:
        return f"{value:.3%}" if self.unit == "%" else f"{digits(value)} ms"


@dataclass(frozen=True, slots=True)
class Limits:
    """None: no limit. Latencies in milliseconds, of recommendations; shares of all requests, and
    of the recommendations that were answered."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    errors: float | None = None
    fallbacks: float | None = None

    def check(self, samples: Samples) -> list[Checked]:
        asked = samples.where(~samples.event)
        found = {
            f"p{share} of recommendations": (limit, percentile(asked, share), "ms")
            for share, limit in ((50, self.p50), (95, self.p95), (99, self.p99))
        }
        failed = float((~samples.answered).mean()) if len(samples) else None
        found["requests that failed"] = (self.errors, failed, "%")
        given = asked.where(asked.answered)
        fallen = float(given.fallen.mean()) if len(given) else None
        found["answers that fell back"] = (self.fallbacks, fallen, "%")
        return [
            Checked(name, limit, value, unit)
            for name, (limit, value, unit) in found.items()
            if limit is not None
        ]
