"""The training loop and the models it starts from: resumed is as if never interrupted, the best
epoch is kept, and what is fine-tuned leaves with everything merged."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from model_store.build.dataset import Encoder, Example, UserSequence
from model_store.build.model import (
    Lora,
    ModelShape,
    Pretrained,
    Trainee,
    extended_tokenizer,
    fine_tuned,
    from_scratch,
)
from model_store.build.tasks import mixture
from model_store.build.tokenizer import save_tokenizer, sid_tokens, train_tokenizer
from model_store.build.train import STATE, Mix, Schedule, train
from model_store.errors import BuildError
from model_store.prompt import PromptTemplate, TitleTasks
from model_store.sid import Codes, Level, SidSpec
from tests.tiny import random_model

SPEC = SidSpec((Level("<a_{}>", 4), Level("<b_{}>", 4)))
CODES: Codes = np.array([[i // 4, i % 4] for i in range(16)], np.int32)
PROMPT = PromptTemplate(
    text="clicked {history} next ",
    tasks=TitleTasks(sid_to_title="title of {sid}: ", title_to_sid="which is {title}? "),
)
USERS = [UserSequence(f"u{u}", tuple((u + i) % 16 for i in range(2 + u % 6))) for u in range(40)]
SHAPE = ModelShape(hidden=16, layers=1, heads=2, kv_heads=1, intermediate=32, max_length=128)
SCHEDULE = Schedule(
    epochs=4, batch_tokens=512, dropout=0.1, mix=Mix(sid_to_title=0.5, title_to_sid=0.5)
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([PROMPT.text], SPEC, 300)


@pytest.fixture(scope="module")
def encoder(tokenizer: Tokenizer) -> Encoder:
    titles = [f"Title {i}" for i in range(16)]
    return Encoder(tokenizer, SPEC, PROMPT, CODES, titles=titles)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Sums are only repeatable in one order."""
    torch.set_num_threads(1)


class Killed(BaseException):
    pass


Draw = Callable[[np.random.Generator], list[Example]]


def killed_at(draw: Draw, epoch: int) -> Draw:
    calls = iter(range(100))

    def examples(rng: np.random.Generator) -> list[Example]:
        if next(calls) == epoch:
            raise Killed
        return draw(rng)

    return examples


@pytest.mark.parametrize("validated", [False, True])
def test_resumed_equals_uninterrupted(
    tokenizer: Tokenizer, encoder: Encoder, tmp_path: Path, validated: bool
) -> None:
    schedule = SCHEDULE.model_copy(update={"validate_every": 1 if validated else 0})
    draw = mixture(USERS, encoder, schedule)
    scores = {1: 0.1, 2: 0.3, 3: 0.2, 4: 0.25}

    def run(folder: Path, examples: Draw) -> object:
        def validate(model: Path) -> float:
            torch.rand(3)  # a search may draw numbers too
            return scores[epochs_in(folder) + 1]

        def make() -> Trainee:
            return from_scratch(SHAPE, tokenizer)

        return vars(train(make, examples, schedule, folder, validate if validated else None))

    expected = run(tmp_path / "one", draw)
    for epoch in (2, 1):  # killed in the third epoch, then, two epochs on, in the fourth
        with pytest.raises(Killed):
            run(tmp_path / "two", killed_at(draw, epoch))
    assert run(tmp_path / "two", draw) == expected
    one, two = (load_file(tmp_path / run / "model/model.safetensors") for run in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def epochs_in(folder: Path) -> int:
    """Epochs that a checkpoint has behind it."""
    path = folder / STATE / "checkpoint.pt"
    return int(torch.load(path, weights_only=True)["progress"]["epochs"]) if path.exists() else 0


def test_the_best_epoch_is_kept_and_patience_ends_the_training(
    tokenizer: Tokenizer, encoder: Encoder, tmp_path: Path
) -> None:
    schedule = SCHEDULE.model_copy(update={"epochs": 9, "validate_every": 1, "patience": 2})
    seen: list[dict[str, torch.Tensor]] = []

    def validate(model: Path) -> float:
        seen.append(load_file(model / "model.safetensors"))
        return [0.1, 0.4, 0.3, 0.2, 0.9][len(seen) - 1]

    progress = train(
        lambda: from_scratch(SHAPE, tokenizer),
        mixture(USERS, encoder, schedule),
        schedule,
        tmp_path,
        validate,
    )
    assert progress.scores == [(1, 0.1), (2, 0.4), (3, 0.3), (4, 0.2)]
    kept = load_file(tmp_path / "model/model.safetensors")
    assert all(torch.equal(kept[name], seen[1][name]) for name in kept)
    assert not torch.equal(kept["model.norm.weight"], seen[3]["model.norm.weight"])


def test_it_learns_a_rule(tokenizer: Tokenizer, encoder: Encoder, tmp_path: Path) -> None:
    """Every sequence counts up, so the loss goes far below that of guessing."""
    schedule = SCHEDULE.model_copy(update={"epochs": 30, "learning_rate": 5e-3, "mix": Mix()})
    examples = mixture(USERS, encoder, schedule)
    progress = train(lambda: from_scratch(SHAPE, tokenizer), examples, schedule, tmp_path)
    assert progress.losses[-1] < 0.5 * progress.losses[0]


def test_a_mixture_has_the_shares_that_were_asked_for(encoder: Encoder) -> None:
    schedule = Schedule(mix=Mix(sid_to_title=0.5, title_to_sid=2), history_labels=False)
    examples = mixture(USERS, encoder, schedule)(np.random.default_rng(0))
    assert len(examples) == 40 + 20 + 80
    response = len(encoder.sid_of(0).labels[encoder.sid_of(0).labels >= 0])
    assert all((e.labels >= 0).sum() == response for e in [*examples[:40], *examples[60:]])
    assert times_asked(examples[60:]) == {5}


def times_asked(examples: list[Example]) -> set[int]:
    """How often each of 16 titles is asked for among 80 examples."""
    texts = [tuple(example.ids.tolist()) for example in examples]
    return {texts.count(text) for text in texts}


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows words and no SID; Llama's head is not tied to its embeddings."""
    folder = tmp_path_factory.mktemp(str(request.param))
    words = train_tokenizer([PROMPT.text, "Title 0 1 2 3"], SidSpec((Level("<x_{}>", 1),)), 300)
    model = random_model(request.param, words.get_vocab_size() + 7)  # rows that no token uses
    model.save_pretrained(folder)
    save_tokenizer(words, folder, 256)
    return folder


@pytest.fixture
def extended(base: Path, tmp_path: Path) -> Path:
    extended_tokenizer(str(base), SPEC).save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def test_new_rows_start_near_the_mean_and_differ(base: Path, extended: Path) -> None:
    trainee = fine_tuned(Pretrained(base=str(base)), extended, SPEC)
    tokenizer = Tokenizer.from_file(str(extended / "tokenizer.json"))
    new = [tokenizer.token_to_id(token) for token in sid_tokens(SPEC)]
    before = load_file(base / "model.safetensors")
    for name, layer in (
        ("model.embed_tokens.weight", trainee.model.get_input_embeddings()),
        ("lm_head.weight", trainee.model.get_output_embeddings()),
    ):
        if name not in before:
            continue
        weight, old = layer.weight.detach(), before[name]
        known = [i for i in range(len(old)) if i not in new]
        assert torch.equal(weight[known], old[known])
        spread = old[known].std(0)
        assert ((weight[new] - old[known].mean(0)).abs() < 0.5 * spread).all()
        assert len(torch.unique(weight[new], dim=0)) == len(new)


@pytest.mark.parametrize("lora", [None, Lora(rank=4)])
def test_fine_tuning_learns_and_leaves_a_plain_model(
    base: Path, extended: Path, tmp_path: Path, lora: Lora | None
) -> None:
    config = Pretrained(base=str(base), lora=lora)
    tokenizer = Tokenizer.from_file(str(extended / "tokenizer.json"))
    encoder = Encoder(tokenizer, SPEC, PROMPT, CODES, titles=[f"Title {i}" for i in range(16)])
    made: list[Trainee] = []

    def make() -> Trainee:
        made.append(fine_tuned(config, extended, SPEC))
        return made[0]

    schedule = SCHEDULE.model_copy(update={"learning_rate": 1e-2, "epochs": 5, "dropout": 0.0})
    progress = train(make, mixture(USERS, encoder, schedule), schedule, tmp_path)
    assert progress.losses[-1] < 0.8 * progress.losses[0]

    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    ids = torch.from_numpy(encoder.example((0, 1), 2, {}).ids)[None]
    with torch.inference_mode():
        trained = made[0].model.eval()
        expected = trained.lm_head(trained.model(ids).last_hidden_state)
        torch.testing.assert_close(saved(ids).logits, expected, atol=1e-4, rtol=1e-4)
    before, after = (load_file(f / "model.safetensors") for f in (base, tmp_path / "model"))
    assert not any("lora" in name for name in after)
    known = torch.arange(200)  # of the words, none is new
    name = "model.embed_tokens.weight"
    assert torch.equal(after[name][known], before[name][known]) == (lora is not None)


def test_a_base_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="nowhere"):
        extended_tokenizer(str(tmp_path / "nowhere"), SPEC)
