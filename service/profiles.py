"""What a bundle's template knows of a user: which fields of a profile say anything to its model.

A profile that is *stored* is checked field by field: a mistake would be silent in every answer to
come. One that comes with a request is not: what the template does not know renders as unknown.
Neither may bring tokens into a prompt that are no text, where the template takes a value as it is.
"""

from collections.abc import Mapping
from functools import lru_cache

from model_store.bundle import Bundle
from model_store.prompt import Profile, PromptTemplate
from service.errors import InvalidInput
from service.smuggled import AddedTokens

_TEXTS = 4096


class Profiles:
    """The profiles of one bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self._template = template = bundle.manifest.prompt
        self._fields = {field.name: field for field in template.profile}
        self._read = "{profile}" in template.text
        self._bounded = {field.name for field in template.profile if field.values is not None}
        self._free = self._read and (not self._fields or len(self._bounded) < len(self._fields))
        self._tokenizer = bundle.tokenizer
        self._added = AddedTokens(bundle.tokenizer)
        self._smuggled = lru_cache(_TEXTS)(self._find)

    def check_stored(self, profile: Profile) -> None:
        """Raises `InvalidInput` for a field that the template does not declare, for a value that
        it declares no place for, and for what `check` refuses. A template without declared fields
        takes any, if it takes a profile."""
        known = ", ".join(self._fields) if self._fields else "none"
        for name, value in profile.items():
            where = f"profile.{name}"
            if not self._read or (self._fields and name not in self._fields):
                raise InvalidInput(where, f"is no field of the bundle's profile; it knows: {known}")
            field = self._fields.get(name)
            if field is None or field.values is None or value == field.unknown:
                continue
            if value not in field.values:
                raise InvalidInput(where, f"must be one of: {', '.join(field.values)}")
        self.check(profile)

    def check(self, profile: Profile) -> None:
        """Raises `InvalidInput` for tokens of the model in it, naming the field."""
        for name, value in profile.items():
            self._refuse({name: value}, f"profile.{name}")
        self._refuse(profile, "profile")  # two fields may make one token

    def merged(self, stored: Profile, sent: Profile) -> Mapping[str, str]:
        """Field by field, what was sent wins: a request may know one thing better than the store.

        `sent` is checked. What is stored may be from the days of another bundle: where it is no
        text to this one, it does not count.
        """
        both = {**stored, **sent}
        return both if self._smuggled_by(both) is None else sent

    def _refuse(self, profile: Profile, where: str) -> None:
        token = self._smuggled_by(profile)
        if token is not None:
            raise InvalidInput(where, f"contains {token!r}, which is no text to the model")

    def _smuggled_by(self, profile: Profile) -> str | None:
        if not self._free or not profile:
            return None
        # What the template declares are its own words.
        own = {
            name: value if name in self._bounded else ""
            for name, value in profile.items()
            if name in self._fields
        }
        texts = (self._template.around(said) for said in (profile, own))
        return self._smuggled(*("".join(text) for text in texts))

    def _find(self, prompt: str, frame: str) -> str | None:
        return self._added.smuggled(
            self._tokenizer.encode(prompt).ids, self._tokenizer.encode(frame).ids
        )


def says_something(profile: Profile, scene: str | None, template: PromptTemplate) -> bool:
    """Whether a prompt with these differs from one that knows nothing of user and scene."""
    return template.around(profile, scene) != template.around()
