"""What a model writes freely, on one that knows its catalogue by heart and on one that does not."""

from pathlib import Path

import numpy as np
import pytest

from model_store.build.dataset import Encoder, UserSequence
from model_store.build.evaluate import Case
from model_store.build.generation import FreeGeneration
from model_store.build.model import ModelShape, from_scratch
from model_store.build.tasks import mixture
from model_store.build.tokenizer import train_tokenizer
from model_store.build.train import Mix, Schedule, train
from model_store.bundle import Bundle
from model_store.prompt import PromptTemplate, TitleTasks
from model_store.sid import Codes, Level, SidSpec
from model_store.store import Store, create_bundle
from tests.tiny import write_items

SPEC = SidSpec((Level("<a_{}>", 4), Level("<b_{}>", 4)))
CODES: Codes = np.array([[i // 2, i % 2] for i in range(8)], np.int32)  # half of all pairs
TITLES = [
    f"{colour} {thing}" for colour in ("Red", "Blue", "绿色", "White") for thing in ("灯", "chair")
]
PROMPT = PromptTemplate(
    text="clicked {history} next ",
    tasks=TitleTasks(sid_to_title="title of {sid}: ", title_to_sid="which is {title}? "),
)
USERS = [UserSequence(f"u{u}", tuple((u + i) % 8 for i in range(4))) for u in range(24)]


def bundle(folder: Path, epochs: int) -> Bundle:
    tokenizer = train_tokenizer([PROMPT.text, *TITLES], SPEC, 300)
    encoder = Encoder(tokenizer, SPEC, PROMPT, CODES, titles=TITLES)
    schedule = Schedule(
        epochs=epochs, batch_tokens=128, learning_rate=7e-3, mix=Mix(sid_to_title=2)
    )
    shape = ModelShape(hidden=32, layers=2, heads=2, kv_heads=1, intermediate=64, max_length=128)
    examples = mixture(USERS, encoder, schedule)
    train(lambda: from_scratch(shape, tokenizer), examples, schedule, folder)
    items = write_items(
        [
            {"item_id": str(i), "title": title, "sid": sid}
            for i, (title, sid) in enumerate(zip(TITLES, encoder.sids, strict=True))
        ],
        folder / "items.jsonl",
    )
    return Bundle.load(
        create_bundle(
            Store(folder), name="lamps", model=folder / "model", items=items, prompt=PROMPT
        )
    )


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [Case(UserSequence("u", (i, (i + 1) % 8)), (i + 2) % 8) for i in range(8)]


def test_a_model_that_knows_its_items(tmp_path: Path, cases: list[Case]) -> None:
    model = FreeGeneration(bundle(tmp_path, 120))
    invalid = model.invalid_sids(cases, 20)
    assert invalid["first"] == 0
    # Ten beams, and eight items: some of them must be no item.
    assert 0.2 <= invalid["all"] < 1
    assert model.right_titles(range(8)) == 1


def test_a_model_that_knows_nothing(tmp_path: Path, cases: list[Case]) -> None:
    model = FreeGeneration(bundle(tmp_path, 1))
    assert model.invalid_sids(cases, 20)["first"] > 0.5
    assert model.right_titles(range(8)) == 0
