"""The bodies of answers."""

from collections.abc import Iterable, Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from model_store.bundle import Bundle
from service.answer import Answer, Pick
from service.api.beam_schemas import BeamShown, beam_shown
from service.experiments.running import Membership
from service.sources import Reason, Source


class BundleName(BaseModel):
    name: str
    version: int


class LevelShown(BaseModel):
    """What one code of a SID added, given those before it."""

    token: str
    log_probability: float = Field(
        description="of this code; those of all levels sum to that of the SID"
    )
    eligible_items: int = Field(
        description="items that might have been shown under the SID up to here"
    )


class RecommendedItem(BaseModel):
    rank: int = Field(description="from 1")
    item_id: str
    title: str | None
    sid: str
    score: float | None = Field(
        description="log-probability of the SID or, where the bundle blends, of the item by model"
        " and neighbours together; null for popular items"
    )
    source: Source = Field(description="another than the answer's where that one ran out")
    levels: list[LevelShown] | None = Field(
        None,
        description="the log-probability of the SID by level, where the request said `explain`;"
        " not of an item that the neighbours of the history alone have found",
        exclude_if=lambda levels: levels is None,
    )

    @classmethod
    def ranked(cls, picks: Sequence[Pick]) -> list[Self]:
        return [
            cls(
                rank=rank,
                item_id=pick.item_id,
                title=pick.title,
                sid=pick.sid,
                score=pick.score,
                source=pick.source,
                levels=None
                if pick.levels is None
                else [
                    LevelShown(
                        token=level.token,
                        log_probability=level.log_probability,
                        eligible_items=level.eligible_items,
                    )
                    for level in pick.levels
                ],
            )
            for rank, pick in enumerate(picks, start=1)
        ]


class ArmName(BaseModel):
    experiment: str
    arm: str


class Recommendations(BaseModel):
    """Items in order, and how they came about."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "request_id": "2bd0ad9fdf7ad19ec2b7baf3b72de417",
                    "user_id": "mei",
                    "bundle": {"name": "demo", "version": 1},
                    "source": "model",
                    "reason": None,
                    "items": [
                        {
                            "rank": 1,
                            "item_id": "p00638",
                            "title": "Quillon K3 4K Portable Display, 32 inch, Light Grey",
                            "sid": "<a_42><b_103><c_74><d_36>",
                            "score": -3.3977737426757812,
                        }
                    ],
                    "history_used": 2,
                    "unknown_items": 0,
                    "eligible_items": 2600,
                    "seen_items": 0,
                    "timing_ms": {"history": 0.52, "search": 25.62, "total": 26.38},
                }
            ]
        }
    )

    request_id: str
    user_id: str | None
    bundle: BundleName
    source: Source = Field(
        description="where the first item comes from: the model by the history (and profile and"
        " scene), the model by profile and scene alone, what is popular in the scene, or at all"
    )
    reason: Reason | None = Field(
        description="why the source before that one did not answer; null where none is before"
    )
    items: list[RecommendedItem]
    history_used: int = Field(description="history items in the prompt")
    unknown_items: int = Field(description="history items that the bundle does not know")
    eligible_items: int = Field(
        description="items that the answer could have contained; it has fewer than k items"
        " only where this is fewer"
    )
    seen_items: int | None = Field(
        description="items left out because the user has seen them; null where the stored"
        " history could not be read, so that some may be in the answer"
    )
    timing_ms: dict[str, float] = Field(description="milliseconds per stage, and in total")
    cached: bool = Field(
        False,
        description="whether it was computed for an earlier request that asked the same in the"
        " same state; left out where it was not",
        exclude_if=lambda cached: not cached,
    )
    beam: BeamShown = None
    experiments: list[ArmName] = Field(
        [],
        description="the arms that it belongs to; left out where there are none. Events that follow"
        " from it should carry its `request_id`",
        exclude_if=lambda experiments: not experiments,
    )

    @classmethod
    def of(
        cls,
        request_id: str,
        user_id: str | None,
        bundle: Bundle,
        answer: Answer,
        arms: Iterable[Membership] = (),
    ) -> Self:
        return cls(
            request_id=request_id,
            user_id=user_id,
            bundle=BundleName(name=bundle.name, version=bundle.version),
            source=answer.source,
            reason=answer.reason,
            items=RecommendedItem.ranked(answer.picks),
            history_used=answer.history_used,
            unknown_items=answer.unknown_items,
            eligible_items=answer.eligible_items,
            seen_items=answer.seen_items,
            timing_ms=answer.timing_ms,
            cached=answer.cached,
            beam=beam_shown(answer),
            experiments=[ArmName(experiment=m.experiment.name, arm=m.arm.name) for m in arms],
        )


class Item(BaseModel):
    item_id: str
    title: str | None
    sid: str
    attributes: dict[str, Any] = Field(description="whatever the item came with")


class Items(BaseModel):
    items: list[Item]
    next: str | None = Field(description="`after` for the next page; null behind the last item")
