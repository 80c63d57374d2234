"""The bodies of requests for items, and the types that bodies share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from service.answer import Ask
from service.eligibility.policy import Seen
from service.eligibility.wanted import WantedFilter
from service.settings import MAX_BEAM_WIDTH, MAX_DEADLINE_MS

UserId = Annotated[str, Field(min_length=1, max_length=128)]
ItemId = Annotated[str, Field(min_length=1, max_length=256)]
EventId = Annotated[str, Field(min_length=1, max_length=256)]
ProfileName = Annotated[str, Field(min_length=1, max_length=64)]
MAX_EXCLUDED = 1000
MAX_K = 200
FILTER = Field(None, description="what the attributes of each item must be")
EXPLAIN = Field(False, description="say of each item what each level of its SID added to the score")
TRACE = Field(False, description="say what stood in the beam at each level of the search")
ProfileValue = Annotated[str, Field(max_length=256)]
Profile = Annotated[dict[ProfileName, ProfileValue], Field(max_length=32)]
Scene = Annotated[str, Field(min_length=1, max_length=64)]
BundleText = Annotated[str, Field(min_length=1, max_length=64)]
VersionNumber = Annotated[StrictInt, Field(ge=1, lt=1 << 63)]


class RequestBody(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BundleWanted(RequestBody):
    """A version that is loaded."""

    name: BundleText
    version: VersionNumber


class RecommendationRequest(RequestBody):
    """Who asks, and for what."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": "mei", "k": 2, "profile": {"性别": "女", "年龄": "26-35岁"}},
                {"history": ["p02327", "p02147"], "exclude_seen": "history", "explain": True},
            ]
        }
    )

    user_id: UserId | None = Field(None, description="whose stored history is read")
    k: Annotated[StrictInt, Field(ge=1, le=MAX_K)] = Field(10, description="how many items")
    history: list[ItemId] | None = Field(
        None, description="item ids, oldest first; used instead of the stored history"
    )
    profile: Profile | None = Field(
        None,
        description="what the bundle's prompt says of a user; fields that are not sent come from"
        " the stored profile, which is read with the stored history",
    )
    scene: Scene | None = Field(
        None, description="where the items will be shown; one that the bundle knows"
    )
    deadline_ms: Annotated[StrictInt, Field(ge=1, le=MAX_DEADLINE_MS)] | None = Field(
        None,
        description="milliseconds until the answer is due, from its source that can keep to it;"
        " by default what the deployment says",
    )
    beam_width: Annotated[StrictInt, Field(ge=1, le=MAX_BEAM_WIDTH)] | None = Field(
        None, description="SIDs kept at each step of the search, at least k"
    )
    exclude: list[ItemId] = Field(
        [], max_length=MAX_EXCLUDED, description="item ids that the answer must not contain"
    )
    exclude_seen: Seen | None = Field(
        None,
        description="which items of the user's past it must not contain, stored ones included:"
        " those bought, or all; by default what the deployment says",
    )
    bundle: BundleWanted | None = Field(
        None,
        description="the loaded version that shall answer, for comparing it with another; such a"
        " request belongs to no experiment. By default the active one, or that of an arm",
    )
    explain: StrictBool = EXPLAIN
    trace: StrictBool = TRACE
    filter: WantedFilter | None = FILTER

    def ask(self) -> Ask:
        return Ask(
            k=self.k,
            user_id=self.user_id,
            history=self.history,
            profile=self.profile or {},
            scene=self.scene,
            beam_width=self.beam_width,
            deadline_ms=self.deadline_ms,
            exclude=self.exclude,
            exclude_seen=self.exclude_seen,
            explain=self.explain,
            trace=self.trace,
            filter=self.filter,
        )
