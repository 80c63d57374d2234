import numpy as np
import pytest
from tokenizers import Tokenizer

from model_store.build.dataset import (
    IGNORE,
    Encoder,
    Example,
    UserSequence,
    batches,
    cuts,
    epoch,
    fragment,
)
from model_store.build.tokenizer import END_OF_TEXT, train_tokenizer
from model_store.prompt import ProfileField, PromptTemplate
from model_store.sid import Codes, Level, SidSpec

SPEC = SidSpec((Level("<a_{}>", 8), Level("<b_{}>", 8), Level("<e_{}>", 2)), extra=True)
CODES: Codes = np.array([[0, 1, -1], [2, 3, 0], [2, 3, 1], [4, 5, -1]], np.int32)
TEMPLATE = PromptTemplate(
    text="用户{profile}。点击了{history},下一个?",
    profile=(ProfileField(name="性别", text="性别为{}", values=("男", "女"), unknown="未知"),),
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([TEMPLATE.text, "性别为男", "性别为未知"], SPEC, 400)


@pytest.fixture(scope="module")
def encoder(tokenizer: Tokenizer) -> Encoder:
    return Encoder(tokenizer, SPEC, TEMPLATE, CODES)


@pytest.mark.parametrize("history", [(), (0,), (1, 2), (3, 0, 1, 2)])
@pytest.mark.parametrize("profile", [{"性别": "男"}, {}])
def test_joined_pieces_equal_the_tokenised_text(
    encoder: Encoder,
    tokenizer: Tokenizer,
    history: tuple[int, ...],
    profile: dict[str, str],
) -> None:
    """What is trained on is exactly what serving will ask, token by token."""
    sids = SPEC.texts(CODES).to_pylist()
    text = TEMPLATE.render([sids[i] for i in history], profile) + sids[2] + END_OF_TEXT
    example = encoder.example(history, 2, profile)
    assert example.ids.tolist() == tokenizer.encode(text).ids


def test_every_sid_token_is_a_label_and_no_other_but_the_end(
    encoder: Encoder, tokenizer: Tokenizer
) -> None:
    example = encoder.example((0, 1), 2, {})
    learnt = [tokenizer.id_to_token(int(i)) for i in example.labels if i != IGNORE]
    clicked, response = ["<a_0>", "<b_1>", "<a_2>", "<b_3>", "<e_0>"], ["<a_2>", "<b_3>", "<e_1>"]
    assert learnt == [*clicked, *response, END_OF_TEXT]
    kept = example.labels != IGNORE
    assert (example.labels[kept] == example.ids[kept]).all()


def test_opening_and_closing_constants(tokenizer: Tokenizer) -> None:
    """The opening token is the end of the prompt, the closing one part of the response."""
    spec = SidSpec(SPEC.levels[:2], opening="<|begin|>", closing="<|end|>")
    template = PromptTemplate(text="clicked {history} next ", separator="")
    tokenizer = train_tokenizer([template.text], spec, 300)
    example = Encoder(tokenizer, spec, template, CODES[:, :2]).example((0,), 1, {})
    text = "clicked <|begin|><a_0><b_1><|end|> next <|begin|><a_2><b_3><|end|>" + END_OF_TEXT
    assert example.ids.tolist() == tokenizer.encode(text).ids
    begin = tokenizer.token_to_id("<|begin|>")
    assert example.labels[np.flatnonzero(example.ids == begin)[-1]] == IGNORE


def test_epoch_asks_once_per_user_within_the_window(encoder: Encoder) -> None:
    users = [
        UserSequence("one click", (0,)),
        UserSequence("two", (0, 1)),
        UserSequence("many", (0, 1, 2, 3) * 5),
    ]
    examples = epoch(users, encoder, np.random.default_rng(0), max_history=3)
    assert len(examples) == 2
    codes = SPEC.levels[0]
    assert codes.size == 8
    longest = max(len(encoder.example((1, 2, 1), 1, {})), len(examples[0]))
    assert all(len(example) <= longest for example in examples)


def test_all_cuts_occur_and_the_last_as_often_as_asked(encoder: Encoder) -> None:
    users = [UserSequence("u", (0, 3, 0, 3, 1))]
    rng = np.random.default_rng(1)
    lengths = [
        len(epoch(users, encoder, rng, max_history=9, last_share=0.5)[0]) for _ in range(400)
    ]
    by_length = {n: lengths.count(n) / 400 for n in set(lengths)}
    assert len(by_length) == 4
    assert by_length[max(by_length)] == pytest.approx(0.5 + 0.5 / 4, abs=0.08)


def test_batches_hold_every_example_once_within_the_budget() -> None:
    rng = np.random.default_rng(2)
    examples = [
        Example(np.full(n, i + 1), np.full(n, i + 1))
        for i, n in enumerate(rng.integers(1, 60, 200))
    ]
    seen = []
    for ids, labels in batches(examples, rng, tokens=256):
        assert ids.shape == labels.shape
        assert ids.size <= 256
        assert ((labels == IGNORE) == (ids == 0)).all()
        seen += [(int(row[0]), int((row > 0).sum())) for row in ids]
    assert sorted(seen) == [(i + 1, len(example)) for i, example in enumerate(examples)]


def test_a_share_is_asked_before_the_first_item() -> None:
    users = [UserSequence(str(i), (0, 1, 2)) for i in range(1000)]
    rng = np.random.default_rng(0)
    places = [cut for _, cut in cuts(users, rng, last_share=0.5, cold_share=0.2)]
    assert 150 < places.count(0) < 250
    assert places.count(1)
    assert places.count(2)


def test_a_share_is_asked_without_profile_and_without_scene() -> None:
    template = PromptTemplate(
        text="用户{profile}在{scene}。点击了{history},下一个?", profile=TEMPLATE.profile
    )
    spoken = [template.text, "性别为男", "性别为未知", "首页"]
    words = train_tokenizer(spoken, SPEC, 400)
    users = [UserSequence(str(i), (0, 1), {"性别": "男"}, "首页") for i in range(1000)]
    examples = epoch(
        users,
        Encoder(words, SPEC, template, CODES),
        np.random.default_rng(0),
        max_history=8,
        blind_share=0.3,
    )
    texts = [words.decode(example.ids.tolist()) for example in examples]
    without_profile = sum("未知" in text for text in texts)
    without_scene = sum("在。" in text for text in texts)
    assert 250 < without_profile < 350
    assert 250 < without_scene < 350
    assert any("未知在首页" in text for text in texts)
    assert any("性别为男在。" in text for text in texts)


def test_a_fragment_is_words_that_stand_side_by_side() -> None:
    rng, title = np.random.default_rng(0), "Quillon K3 4K Portable Display"
    found = {fragment(title, rng) for _ in range(500)}
    words = title.split()
    runs = {" ".join(words[i:j]) for i in range(5) for j in range(i + 2, 6)} - {title}
    assert found == runs
    assert fragment("Mug", rng) == "Mug"
