"""What every section of a build's configuration has in common."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Immutable, and a key that it does not know is a mistake, not a comment."""

    model_config = ConfigDict(frozen=True, extra="forbid")
