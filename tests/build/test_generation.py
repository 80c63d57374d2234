"""What a model writes freely: counted on one that has learnt its SIDs and on one that has not."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from model_store.build.dataset import Encoder, UserSequence
from model_store.build.evaluate import Case
from model_store.build.generation import LONGEST_TITLE, FreeGeneration
from model_store.build.model import ModelShape, from_scratch
from model_store.build.tasks import mixture
from model_store.build.tokenizer import train_tokenizer
from model_store.build.train import Schedule, train
from model_store.bundle import Bundle
from model_store.prompt import PromptTemplate, TitleTasks
from model_store.sid import Codes, Level, SidSpec
from model_store.store import Store, create_bundle
from tests.tiny import write_items

SPEC = SidSpec((Level("<a_{}>", 4), Level("<b_{}>", 4)))
CODES: Codes = np.array([[i // 2, i % 2] for i in range(4)], np.int32)  # of 16 pairs
TASKS = TitleTasks(sid_to_title="title of {sid}: ", title_to_sid="which is {title}? ")
PROMPT = PromptTemplate(text="clicked {history} next ", tasks=TASKS)
USERS = [UserSequence(f"u{u}", tuple((u + i) % 4 for i in range(4))) for u in range(24)]
CASES = [Case(UserSequence("u", (i, (i + 1) % 4)), (i + 2) % 4) for i in range(4)]
ROWS = range(len(CODES))


def trained(folder: Path, epochs: int) -> Path:
    tokenizer = train_tokenizer([PROMPT.text, TASKS.sid_to_title], SPEC, 300)
    encoder = Encoder(tokenizer, SPEC, PROMPT, CODES)
    schedule = Schedule(epochs=epochs, batch_tokens=256, learning_rate=5e-3)
    shape = ModelShape(hidden=32, layers=1, heads=2, kv_heads=1, intermediate=64, max_length=128)
    examples = mixture(USERS, encoder, schedule)
    train(lambda: from_scratch(shape, tokenizer), examples, schedule, folder)
    return folder / "model"


def bundle(model: Path, titles: Sequence[str]) -> Bundle:
    sids = SPEC.texts(CODES).to_pylist()
    items = [{"item_id": str(i), "title": titles[i], "sid": sids[i]} for i in ROWS]
    file = write_items(items, model.parent / "items.jsonl")
    store = Store(model.parent / "store")
    return Bundle.load(create_bundle(store, name="t", model=model, items=file, prompt=PROMPT))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("trained"), 30)


def test_a_model_that_knows_its_items_writes_their_sids(model: Path) -> None:
    invalid = FreeGeneration(bundle(model, ["a", "b", "c", "d"])).invalid_sids(CASES, 20)
    assert invalid["first"] == 0
    assert 0.6 <= invalid["all"] < 1  # ten beams, and only four items to fill them


def test_a_model_that_knows_nothing_does_not(tmp_path: Path) -> None:
    invalid = FreeGeneration(bundle(trained(tmp_path, 1), ["a", "b", "c", "d"]))
    assert invalid.invalid_sids(CASES, 20)["first"] > 0.5


def test_titles_are_right_where_they_are_what_the_model_writes(model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    greedy = AutoModelForCausalLM.from_pretrained(model)
    written = []
    for sid in SPEC.texts(CODES).to_pylist():
        asked = tokenizer(TASKS.ask_title(sid), return_tensors="pt")
        ids = greedy.generate(**asked, max_new_tokens=LONGEST_TITLE, do_sample=False)
        new = ids[0, asked.input_ids.shape[1] :]
        written.append(tokenizer.decode(new).removesuffix("<|endoftext|>"))
    assert FreeGeneration(bundle(model, written)).right_titles(ROWS) == 1
    half = [*written[:2], "another", "title"]
    assert FreeGeneration(bundle(model, half)).right_titles(ROWS) == 0.5
