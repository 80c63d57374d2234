"""What a key is: a name, the digest of a secret, and what whoever knows the secret may do."""

import hashlib
import secrets
from datetime import UTC, datetime
from typing import Annotated, Literal, get_args

from limits import parse
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

Scope = Literal["read", "write", "admin", "metrics"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
ANONYMOUS = "anonymous"
"""The name of whoever asks a service that has no keys."""

# So that scanners for leaked secrets can know one when they see it.
_PREFIX = "sidrec_"
_BYTES = 32


def _not_reserved(name: str) -> str:
    if name == ANONYMOUS:
        raise ValueError(f"{ANONYMOUS!r} is the name of those without a key")
    return name


def _rate(text: str) -> str:
    try:
        usable = parse(text).amount > 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be a rate such as 100/second or 5000/minute")
    return text


class Key(BaseModel):
    """One key. Scopes are independent: none includes another."""

    # Whoever writes the secret where its digest belongs shall not find it in a log.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$"), AfterValidator(_not_reserved)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[frozenset[Scope], Field(min_length=1)]
    rate: Annotated[str, AfterValidator(_rate)] | None = None
    batch: Annotated[int, Field(ge=1)] | None = None
    expires: AwareDatetime | None = None

    @property
    def expired(self) -> bool:
        return self.expires is not None and self.expires <= datetime.now(UTC)


def new_secret() -> str:
    """A secret that cannot be guessed: 256 random bits."""
    return _PREFIX + secrets.token_urlsafe(_BYTES)


def digest(secret: str) -> str:
    """What is kept of a secret. Fast on purpose: there is nothing to guess in 256 random bits."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
