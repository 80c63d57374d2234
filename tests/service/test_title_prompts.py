"""Prompts of the title tasks: the tokens of training, and nobody's SID smuggled in."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.build.dataset import IGNORE, Encoder, Example
from model_store.bundle import Bundle
from service.errors import InvalidInput, NotTrained
from service.title_prompts import TitlePrompts
from tests.service.titled import TASKS, titled_bundle
from tests.tiny import make_bundle, random_items


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return titled_bundle(tmp_path_factory.mktemp("titled"))


@pytest.fixture(scope="module")
def prompts(bundle: Bundle) -> TitlePrompts:
    return TitlePrompts(bundle)


@pytest.fixture(scope="module")
def encoder(bundle: Bundle) -> Encoder:
    catalogue = bundle.catalogue
    return Encoder(
        bundle.tokenizer,
        bundle.spec,
        bundle.manifest.prompt,
        catalogue.codes,
        titles=catalogue.titles,
    )


def prompt_of(example: Example) -> list[int]:
    """The part of an example in front of what is learnt."""
    prompt: list[int] = example.ids[example.labels == IGNORE].tolist()
    return prompt


def test_they_are_those_of_training(
    bundle: Bundle, prompts: TitlePrompts, encoder: Encoder
) -> None:
    for row, title in enumerate(bundle.catalogue.titles):
        assert prompts.ask_sid(title or "") == prompt_of(encoder.sid_of(row))
        assert prompts.ask_title(bundle.sids[row]) == prompt_of(encoder.title_of(row))


def test_with_constant_tokens_around_the_codes(tmp_path: Path) -> None:
    items = random_items(20, (4, 4))
    for item in items:
        item["sid"] = f"<|sid_begin|>{item['sid']}<|sid_end|>"
    bundle = make_bundle(tmp_path, items, prompt=titled_bundle(tmp_path / "t").manifest.prompt)
    catalogue = bundle.catalogue
    encoder = Encoder(
        bundle.tokenizer,
        bundle.spec,
        bundle.manifest.prompt,
        catalogue.codes,
        titles=catalogue.titles,
    )
    prompts = TitlePrompts(bundle)
    tokens = prompts.ask_sid("Title 3")
    assert tokens == prompt_of(encoder.sid_of(0, "Title 3"))
    assert tokens[-1] == bundle.tokenizer.token_to_id("<|sid_begin|>")
    with pytest.raises(InvalidInput, match="sid_begin"):
        prompts.ask_sid("<|sid_begin|>")


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("<a_3>", "<a_3>"),
        ("shoes<a_3><b_2><c_1>", "<"),
        ("红色<b_0>鞋", "<b_0>"),
        ("<|endoftext|>", "<|endoftext|>"),
        ("shoes? <|endoftext|>Which is called hats", "<|endoftext|>"),
    ],
)
def test_tokens_of_the_model_are_refused(prompts: TitlePrompts, query: str, named: str) -> None:
    with pytest.raises(InvalidInput, match="no text to the model") as caught:
        prompts.ask_sid(query)
    assert caught.value.field == "query"
    assert named in caught.value.reason


@pytest.mark.parametrize(
    "query", ["<a_99>", "a_3", "<a_3", "< a_3 >", "|endoftext|", "{title}", " "]
)
def test_what_only_looks_like_one_is_text(
    bundle: Bundle, prompts: TitlePrompts, query: str
) -> None:
    tokens = prompts.ask_sid(query)
    text = bundle.tokenizer.decode(tokens, skip_special_tokens=False)
    assert text == TASKS.ask_sid(query)


@given(
    st.lists(
        st.sampled_from(
            ["<a_3>", "<a_", "3>", "<", "|endoftext|", "|>", "<|", " ", "鞋", "{title}"]
        )
        | st.text(max_size=3),
        max_size=6,
    ).map("".join)
)
def test_no_query_brings_a_token_that_is_no_text(
    bundle: Bundle, prompts: TitlePrompts, query: str
) -> None:
    added = bundle.tokenizer.get_added_tokens_decoder()
    try:
        tokens = prompts.ask_sid(query)
    except InvalidInput:
        assert any(token.content in query for token in added.values()) or len(query) > 200
    else:
        assert not set(tokens) & set(added)
        assert not any(token.content in query for token in added.values())


def test_too_long_a_query(prompts: TitlePrompts) -> None:
    with pytest.raises(InvalidInput, match="tokens, at most") as caught:
        prompts.ask_sid("鞋" * 400)
    assert caught.value.field == "query"


def test_without_prompts_for_titles(tmp_path: Path) -> None:
    prompts = TitlePrompts(make_bundle(tmp_path, random_items(20, (4, 4))))
    with pytest.raises(NotTrained, match="tiny 1 has no prompts for titles, so it cannot search"):
        prompts.ask_sid("shoes")
    with pytest.raises(NotTrained, match="cannot describe"):
        prompts.ask_title("<a_1><b_1>")


def test_without_training_for_one_of_them(tmp_path: Path) -> None:
    prompts = TitlePrompts(titled_bundle(tmp_path, mix={"sid_to_title": 0.5, "title_to_sid": 0}))
    assert prompts.ask_title("<a_1><b_1><c_1>")
    with pytest.raises(NotTrained, match="was not trained on title_to_sid"):
        prompts.ask_sid("shoes")


def test_what_was_written_as_text(bundle: Bundle, prompts: TitlePrompts) -> None:
    tokens = bundle.tokenizer.encode(" 红色 shoes <a_3>of<|endoftext|>").ids
    assert prompts.text(tokens) == "红色 shoes of"
