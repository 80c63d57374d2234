"""The file of keys: TOML, one `[[key]]` each."""

import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from service.keys.key import Key


class KeysInvalid(Exception):
    """Keys that cannot be used; `problems` has one line for each reason, without any secret."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(self.problems))


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    key: list[Key] = []


def read_keys(path: Path) -> list[Key]:
    """The keys of a file; an empty file has none. Raises `KeysInvalid`."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        keys = _File.model_validate(content).key
    except OSError as error:
        raise KeysInvalid([f"{path}: {error.strerror}"]) from None
    except ValidationError as error:
        raise KeysInvalid(f"{path}: {_line(details)}" for details in _errors(error)) from None
    except UnicodeDecodeError:
        raise KeysInvalid([f"{path}: is not UTF-8"]) from None
    except tomllib.TOMLDecodeError as error:
        raise KeysInvalid([f"{path}: not TOML: {error}"]) from None
    distinct(keys, str(path))
    return keys


def distinct(keys: Iterable[Key], where: str) -> None:
    """Raises `KeysInvalid` where two keys share a name: a limit or a log line would mean both."""
    twice = [name for name, count in Counter(key.name for key in keys).items() if count > 1]
    if twice:
        raise KeysInvalid([f"{where}: two keys are called {name}" for name in twice])


def entry(key: Key) -> str:
    """A key as the file has it."""
    scopes = ", ".join(f'"{scope}"' for scope in sorted(key.scopes))
    lines = ["[[key]]", f'name = "{key.name}"', f'sha256 = "{key.sha256}"', f"scopes = [{scopes}]"]
    if key.rate is not None:
        lines.append(f'rate = "{key.rate}"')
    if key.batch is not None:
        lines.append(f"batch = {key.batch}")
    if key.expires is not None:
        lines.append(f"expires = {key.expires.isoformat()}")
    return "\n".join(lines) + "\n"


def _errors(error: ValidationError) -> list[tuple[tuple[int | str, ...], str]]:
    return [(details["loc"], details["msg"]) for details in error.errors(include_input=False)]


def _line(details: tuple[tuple[int | str, ...], str]) -> str:
    where, message = details
    return f"{'.'.join(map(str, where))}: {message.removeprefix('Value error, ')}"
