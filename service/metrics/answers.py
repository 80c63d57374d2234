"""What answers are made of."""

from collections import Counter as Counted
from collections.abc import Callable, Mapping
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.answer import Answer
from service.metrics.buckets import AGES, HISTORY_ITEMS, SCORES, SECONDS
from service.past import Stored
from service.sources import Reason, Source
from service.title_prompts import Purpose


class AnswerMetrics:
    """Recommendations, and the histories and counts behind them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._stages = Histogram(
            "sidrec_stage_seconds",
            "Time of a stage of a recommendation",
            ("stage",),
            buckets=SECONDS,
            registry=registry,
        )
        self._titles = Histogram(
            "sidrec_title_stage_seconds",
            "Time of a stage of a search by words, or of an item's description",
            ("task", "stage"),
            buckets=SECONDS,
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
        self._ages = Histogram(
            "sidrec_history_age_seconds",
            "Time since the newest event of a stored history that was read",
            buckets=AGES,
            registry=registry,
        )
        self._used = Histogram(
            "sidrec_history_items_used",
            "History items in the prompt of an answer by the model",
            buckets=HISTORY_ITEMS,
            registry=registry,
        )
        self._scores = Histogram(
            "sidrec_first_item_score",
            "Log-probability of the first item of an answer by the model",
            buckets=SCORES,
            registry=registry,
        )
        self._empty = Counter(
            "sidrec_empty_answers", "Recommendations without an item", registry=registry
        )
        self._events = Counter(
            "sidrec_events",
            "Events acknowledged, new ones and repetitions",
            ("result",),
            registry=registry,
        )
        self._cached = Counter(
            "sidrec_cached_answers", "Answers that were computed earlier", registry=registry
        )
        self._unknown = Counter(
            "sidrec_unknown_items", "History items not in the bundle", registry=registry
        )
        self._popularity_age = Gauge(
            "sidrec_popularity_age_seconds",
            "Time since the popular items were read from Redis",
            registry=registry,
        )

        # A counter that is not there yet cannot be seen to stand still.
        for counter, values in (
            (self._recommendations, get_args(Source)),
            (self._fallbacks, get_args(Reason)),
            (self._histories, get_args(Stored)),
            (self._events, ("accepted", "duplicate")),
        ):
            for value in values:
                counter.labels(value)

    def answered(self, answer: Answer) -> None:
        """A recommendation was made."""
        self._recommendations.labels(answer.source).inc()
        if answer.reason is not None:
            self._fallbacks.labels(answer.reason).inc()
        if answer.stored is not None:
            self._histories.labels(answer.stored).inc()
        for source, items in Counted(pick.source for pick in answer.picks).items():
            self._items.labels(source).inc(items)
        self._unknown.inc(answer.unknown_items)
        if answer.history_age_s is not None:
            self._ages.observe(answer.history_age_s)
        if answer.source == "model":
            self._used.observe(answer.history_used)
        if not answer.picks:
            self._empty.inc()
        elif (score := answer.picks[0].score) is not None:
            self._scores.observe(score)
        self._cached.inc(answer.cached)
        for stage, ms in answer.timing_ms.items():
            self._stages.labels(stage).observe(ms / 1000)

    def titles(self, task: Purpose, timing_ms: Mapping[str, float]) -> None:
        """Items were found by words, or words for an item."""
        for stage, ms in timing_ms.items():
            self._titles.labels(task, stage).observe(ms / 1000)

    def events(self, accepted: int, duplicates: int) -> None:
        """Events were acknowledged."""
        self._events.labels("accepted").inc(accepted)
        self._events.labels("duplicate").inc(duplicates)

    def popularity(self, age: Callable[[], float]) -> None:
        """`age` is asked at each scrape for the seconds since popularity was refreshed."""
        self._popularity_age.set_function(age)
