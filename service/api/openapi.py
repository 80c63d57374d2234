"""The OpenAPI document as text: committed as `docs/openapi.json`, so that a change of the surface
shows in a review."""

import json

from service.app import create_app
from service.settings import Settings


def document() -> str:
    """Of the service as this code has it; settings do not change it. Loads no model."""
    settings = Settings.model_construct()
    return json.dumps(create_app(settings).openapi(), indent=1, ensure_ascii=False)
