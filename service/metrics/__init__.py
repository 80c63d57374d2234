"""What Prometheus is told; docs/observability.md says what each of it means."""

from service.metrics.metrics import Metrics

__all__ = ["Metrics"]
