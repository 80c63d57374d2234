"""What an experiment has found so far, as numbers: `findings` makes them, `page` shows them."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from service.experiments.definition import Status
from service.experiments.statistics import Test

Verdict = Literal["better", "worse", "no difference found"]


class RateShown(BaseModel):
    """A share of the exposed users, with a 95% confidence interval (Wilson)."""

    users: int
    value: float | None = Field(description="null where nobody was exposed")
    low: float | None
    high: float | None


class Difference(BaseModel):
    """An arm's rate less the control's."""

    value: float
    low: float = Field(description="of a 95% confidence interval (Newcombe)")
    high: float
    lift: float | None = Field(description="relative to the control's rate; null where that is 0")
    p_value: float = Field(description="two-sided")
    adjusted_p_value: float = Field(description="for the number of arms that are compared (Holm)")
    test: Test
    verdict: Verdict = Field(description="by the adjusted p-value and the plan's alpha")


class Guardrails(BaseModel):
    """What an arm must not pay with."""

    answers: int
    p50_ms: float | None = Field(description="from the history to the items, up to 10% too high")
    p99_ms: float | None
    fallback_share: float | None = Field(description="of answers that are not the model's")
    empty_share: float | None = Field(description="of answers without an item")


class ArmReport(BaseModel):
    name: str
    control: bool
    bundle: str | None = Field(description="name and version; null for the active one")
    share: float
    exposed_users: int
    clicking: RateShown = Field(description="UCTR: clicking over exposed users")
    purchasing: RateShown
    clicking_vs_control: Difference | None
    purchasing_vs_control: Difference | None
    guardrails: Guardrails


class Planned(BaseModel):
    """How many users finding a difference takes."""

    base_rate: float | None = Field(description="UCTR of the control that this is about")
    lift: float
    alpha: float
    power: float
    users: dict[str, int] | None = Field(
        description="that each arm needs; null where the base rate is not known, or too high for"
        " such a lift"
    )
    reached: bool = Field(description="whether every arm has them")
    lift_found: dict[str, float] | None = Field(
        description="relative lift that the users so far find with this power, by arm"
    )


class Report(BaseModel):
    """An experiment's state. Forced users are not in it."""

    experiment: str
    description: str
    status: Status
    scene: str | None
    start: datetime
    end: datetime | None
    generated: datetime
    exact: bool = Field(description="whether every number of users was counted, not estimated")
    same_ratio_p_value: float | None = Field(
        description="of numbers of exposed users this far from the shares, by chance"
    )
    arms: list[ArmReport]
    plan: Planned
    notes: list[str] = Field(description="what to know before believing it")
