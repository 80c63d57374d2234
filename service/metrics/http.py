"""Rate, errors and durations of requests, and who was refused."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.metrics.buckets import SECONDS

# A client can invent methods, and each label value is kept for ever.
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class HttpMetrics:
    """Requests, whatever they ask for."""

    def __init__(self, registry: CollectorRegistry) -> None:
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
            buckets=SECONDS,
            registry=registry,
        )
        self._problems = Counter(
            "sidrec_problems",
            "Answers that are problems, by their kind",
            ("kind",),
            registry=registry,
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

    def request(
        self, route: str, method: str, status: int, seconds: float, problem: str | None
    ) -> None:
        """An HTTP request was answered; `route` is a template, never a path, and `problem` the kind
        of the problem that the answer is."""
        method = method if method in _METHODS else "other"
        self._requests.labels(route, method, status).inc()
        self._latency.labels(route, method).observe(seconds)
        if problem is not None:
            self._problems.labels(problem).inc()

    def refused(self, reason: str) -> None:
        """A request was refused: no key, an unknown or expired one, its scope, its rate."""
        self._refused.labels(reason).inc()

    def keys(self, count: int, usable: bool) -> None:
        """So many keys are in force, and whether their file can be used."""
        self._keys.set(count)
        self._keys_unusable.set(not usable)
