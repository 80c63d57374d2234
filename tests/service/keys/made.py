"""Keys for tests: secrets and the file that makes them valid."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service.keys.file import entry
from service.keys.key import SCOPES, Key, digest

SECRETS: dict[str, str] = {scope: f"secret-of-{scope}" for scope in SCOPES}


def key(name: str, secret: str, *scopes: str, **more: Any) -> Key:
    return Key.model_validate({"name": name, "sha256": digest(secret), "scopes": scopes, **more})


def write(path: Path, *keys: Key) -> Path:
    """Replaces the file at once, as one should."""
    fresh = path.with_suffix(".new")
    fresh.write_text("".join(entry(one) for one in keys))
    fresh.replace(path)
    return path


def one_per_scope() -> list[Key]:
    return [key(scope, secret, scope) for scope, secret in SECRETS.items()]


def bearer(secret: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {secret}"}
