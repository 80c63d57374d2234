"""A bundle that finds items by their titles, as its prompt and its training say."""

from collections.abc import Mapping
from pathlib import Path

from model_store.bundle import MANIFEST, Bundle, Manifest
from model_store.prompt import PromptTemplate, TitleTasks
from tests.tiny import TEMPLATE, make_bundle, random_items

TASKS = TitleTasks(sid_to_title="What is {sid}?", title_to_sid="Which is called {title}?")
PROMPT = PromptTemplate(text=TEMPLATE.text, tasks=TASKS)


def titled_bundle(folder: Path, *, mix: Mapping[str, float] | None = None) -> Bundle:
    """60 items; `mix` is how often the title tasks were trained, None where nobody knows."""
    bundle = make_bundle(folder, random_items(60, (4, 4, 4)), prompt=PROMPT)
    if mix is None:
        return bundle
    manifest = bundle.path / MANIFEST
    known = Manifest.model_validate_json(manifest.read_bytes())
    told = known.model_copy(update={"training": {"train": {"mix": dict(mix)}}})
    manifest.write_text(told.model_dump_json())
    return Bundle.load(bundle.path)
