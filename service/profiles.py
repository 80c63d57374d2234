"""What a bundle's template knows of a user: which fields of a profile say anything to its model.

A profile that is *stored* is checked field by field: a mistake would be silent in every answer to
come. One that comes with a request is not: what the template does not know renders as unknown.
"""

from collections.abc import Mapping

from model_store.prompt import Profile, PromptTemplate
from service.errors import InvalidInput


def check_profile(profile: Profile, template: PromptTemplate) -> None:
    """Raises `InvalidInput` for a field that the template does not declare, and for a value that
    it declares no place for. A template without declared fields takes any, if it takes a profile.
    """
    fields = {field.name: field for field in template.profile}
    known = ", ".join(fields) if fields else "none"
    for name, value in profile.items():
        where = f"profile.{name}"
        if "{profile}" not in template.text or (fields and name not in fields):
            raise InvalidInput(where, f"is no field of the bundle's profile; it knows: {known}")
        field = fields.get(name)
        if field is None or field.values is None or value == field.unknown:
            continue
        if value not in field.values:
            raise InvalidInput(where, f"must be one of: {', '.join(field.values)}")


def merged(stored: Profile, sent: Profile) -> Mapping[str, str]:
    """Field by field, what was sent wins: a request may know one thing better than the store."""
    return {**stored, **sent}


def says_something(profile: Profile, scene: str | None, template: PromptTemplate) -> bool:
    """Whether a prompt with these differs from one that knows nothing of user and scene."""
    return template.around(profile, scene) != template.around()
