"""What an experiment is. No Redis, no HTTP."""

import secrets
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationInfo,
    WithJsonSchema,
    field_serializer,
    field_validator,
)

from service.eligibility.filter import Filter
from service.eligibility.policy import Seen
from service.errors import InvalidInput
from service.settings import MAX_BEAM_WIDTH

MAX_ARMS = 10
MAX_FORCED = 1000

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Status = Literal["scheduled", "running", "ended"]


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.utcoffset() is None else moment.astimezone(UTC)


Moment = Annotated[
    datetime,
    AfterValidator(_in_utc),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "number"}]}),
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ArmBundle(_Part):
    """A version that is loaded, whether or not it is the active one."""

    name: str = Field(min_length=1, max_length=64)
    version: StrictInt = Field(ge=1)


class ArmSettings(_Part):
    """What an arm changes in the requests of its users; what is not named stays as it is."""

    beam_width: StrictInt | None = Field(
        None, ge=1, le=MAX_BEAM_WIDTH, description="in the place of the request's"
    )
    exclude_seen: Seen | None = Field(None, description="in the place of the request's")
    filter: Filter | None = Field(None, description="beside the request's")

    @field_serializer("filter")
    def _as_sent(self, wanted: Filter | None) -> dict[str, Any] | None:
        # What was not named in a filter means something else than an empty list.
        return None if wanted is None else wanted.model_dump(by_alias=True, exclude_unset=True)


class Arm(_Part):
    """One of the alternatives."""

    name: Name
    share: float = Field(ge=1e-4, le=1, description="of all users")
    control: StrictBool = Field(
        False, description="whether the others are compared with this one: so for exactly one arm"
    )
    bundle: ArmBundle | None = Field(
        None, description="which loaded version answers; by default the active one"
    )
    settings: ArmSettings = ArmSettings()


class Plan(_Part):
    """What the experiment shall be able to see, decided before it starts."""

    lift: float = Field(
        0.1, ge=1e-4, le=10, description="relative change worth finding: 0.1 is 10%"
    )
    alpha: float = Field(0.05, ge=1e-6, lt=0.5, description="false alarms, where nothing differs")
    power: float = Field(
        0.8, ge=0.5, le=0.9999, description="chance of finding a lift that is there"
    )
    base_rate: float | None = Field(
        None, ge=1e-6, le=0.999, description="UCTR of the control; by default what is observed"
    )


class Design(_Part):
    """An experiment as somebody describes it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "arms": [
                        {"name": "narrow", "share": 0.5, "control": True},
                        {"name": "wide", "share": 0.5, "settings": {"beam_width": 50}},
                    ],
                    "end": "2030-01-01T00:00:00Z",
                }
            ]
        }
    )

    description: str = Field("", max_length=1000, description="for people")
    arms: tuple[Arm, ...] = Field(
        min_length=2,
        max_length=MAX_ARMS,
        description="their shares sum to 1 or less; other users are outside of the experiment",
    )
    salt: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="of the hash that divides users; by default the experiment's name. The same"
        " salt and shares divide users alike",
    )
    scene: str | None = Field(
        None, min_length=1, max_length=64, description="only requests with this scene take part"
    )
    start: Moment | None = Field(None, description="by default now")
    end: Moment | None = Field(None, description="by default when it is stopped")
    window_s: StrictInt = Field(
        86_400,
        ge=1,
        le=30 * 86_400,
        description="seconds after an answer in which a click or a purchase counts",
    )
    click_types: tuple[Annotated[str, Field(min_length=1, max_length=32)], ...] = Field(
        ("click",), min_length=1, max_length=10, description="types of events that are clicks"
    )
    plan: Plan = Plan()

    @field_validator("arms")
    @classmethod
    def _fit(cls, arms: tuple[Arm, ...]) -> tuple[Arm, ...]:
        twice = [name for name, count in Counter(arm.name for arm in arms).items() if count > 1]
        if twice:
            raise ValueError(f"has {', '.join(twice)} twice")
        if sum(arm.control for arm in arms) != 1:
            raise ValueError("exactly one of them must be the control")
        if (total := sum(arm.share for arm in arms)) > 1 + 1e-9:
            raise ValueError(f"their shares sum to {total:g}, which is more than 1")
        return arms

    @field_validator("end")
    @classmethod
    def _behind(cls, end: datetime | None, info: ValidationInfo) -> datetime | None:
        start = info.data.get("start")
        if end is not None and start is not None and end <= start:
            raise ValueError("must lie behind the start")
        return end


class Experiment(Design):
    """An experiment as it is kept.

    key:    names its counters; a later experiment of the same name has another one
    salt:   of the hash that divides users
    start:  from then on users are divided
    forced: users who see an arm in any case, and are not counted
    """

    model_config = ConfigDict(json_schema_extra={})

    name: Name
    key: str
    salt: str
    start: Moment
    forced: dict[str, str] = Field({}, max_length=MAX_FORCED)

    @classmethod
    def of(cls, name: str, design: Design, now: datetime, before: Self | None = None) -> Self:
        """What `design` describes, begun now where it does not say when; as a change of the one
        `before`, if there is one. Raises `InvalidInput` for an end that is not behind that."""
        fields = {field: getattr(design, field) for field in Design.model_fields}
        fields["salt"] = design.salt or name
        fields["start"] = design.start or (now if before is None else before.start)
        fields["key"] = f"{name}.{secrets.token_hex(4)}" if before is None else before.key
        fields["forced"] = {} if before is None else before.forced
        if design.end is not None and design.end <= fields["start"]:
            raise InvalidInput(
                "end", f"must lie behind the start, {fields['start']:%Y-%m-%d %H:%M}"
            )
        return cls(name=name, **fields)

    @property
    def control(self) -> Arm:
        return next(arm for arm in self.arms if arm.control)

    def arm(self, name: str) -> Arm | None:
        return next((arm for arm in self.arms if arm.name == name), None)

    def shares(self) -> dict[str, float]:
        return {arm.name: arm.share for arm in self.arms}

    def status_at(self, now: datetime) -> Status:
        if self.end is not None and now >= self.end:
            return "ended"
        return "running" if now >= self.start else "scheduled"

    @property
    def window(self) -> timedelta:
        return timedelta(seconds=self.window_s)
