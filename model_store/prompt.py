"""The prompt template of a bundle: profile, scene and history become text.

Training and serving render through this one module, so that a model is always asked in the words
it was trained on. It knows text only: no tokenizer, no length limit.
"""

import re
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

_PLACEHOLDER = re.compile(r"\{profile\}|\{scene\}")

Profile = Mapping[str, str]


class ProfileField(BaseModel):
    """One field of a user's profile: how it reads, which values it may have, and what stands for
    a value that is missing or not among them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    text: str
    values: tuple[str, ...] | None = None
    unknown: str = "unknown"

    def render(self, profile: Profile) -> str:
        value = profile.get(self.name, self.unknown)
        known = self.values is None or value in self.values
        return self.text.replace("{}", value if known else self.unknown)


class TitleTasks(BaseModel):
    """How a model that was trained on titles too is asked for the title of a SID, and for the SID
    of a title."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sid_to_title: str
    title_to_sid: str

    @field_validator("sid_to_title", "title_to_sid")
    @classmethod
    def _one_place(cls, text: str, info: ValidationInfo) -> str:
        name = str(info.field_name).split("_")[0]
        if text.count(f"{{{name}}}") != 1:
            raise ValueError(f"the template must contain {{{name}}} exactly once")
        return text

    def ask_title(self, sid: str) -> str:
        return self.sid_to_title.replace("{sid}", sid)

    def ask_sid(self, title: str) -> str:
        return self.title_to_sid.replace("{title}", title)


class PromptTemplate(BaseModel):
    """`text` with the placeholder `{history}` and, where the model was trained so, `{profile}`
    and `{scene}`. SIDs of the history are joined by `separator`, profile fields by
    `profile_separator`; a profile without declared fields renders as `name: value`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    separator: str = ", "
    profile: tuple[ProfileField, ...] = ()
    profile_separator: str = ","
    scenes: tuple[str, ...] = Field(default=(), description="scene names that the bundle knows")
    # These two are left out where they say nothing, so that such a bundle is still read by what
    # knows neither.
    cold: bool = Field(
        default=False,
        exclude_if=lambda cold: not cold,
        description="whether the model was trained on prompts without a history too",
    )
    tasks: TitleTasks | None = Field(default=None, exclude_if=lambda tasks: tasks is None)

    @field_validator("text")
    @classmethod
    def _one_history(cls, text: str) -> str:
        if text.count("{history}") != 1:
            raise ValueError("the template must contain {history} exactly once")
        return text

    def render(
        self, history: Sequence[str], profile: Profile | None = None, scene: str | None = None
    ) -> str:
        """The prompt for SIDs in time order, oldest first."""
        before, after = self.around(profile, scene)
        return before + self.separator.join(history) + after

    def around(self, profile: Profile | None = None, scene: str | None = None) -> tuple[str, str]:
        """The text before and after the history."""
        values = {"{profile}": self._profile(profile or {}), "{scene}": scene or ""}
        # One pass: a value that happens to contain a placeholder stays what it is.
        before, after = (
            _PLACEHOLDER.sub(lambda match: values[match[0]], part)
            for part in self.text.split("{history}")
        )
        return before, after

    def _profile(self, profile: Profile) -> str:
        if self.profile:
            parts = [field.render(profile) for field in self.profile]
        else:
            parts = [f"{name}: {value}" for name, value in profile.items()]
        return self.profile_separator.join(parts)
