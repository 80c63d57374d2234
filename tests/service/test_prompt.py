"""Prompts: what they say, and what falls off."""

import random
from dataclasses import replace
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from model_store.bundle import Bundle
from model_store.errors import SidError
from service.errors import InvalidInput
from service.prompt import PromptBuilder


def test_a_prompt_is_the_template_in_tokens(bundle: Bundle) -> None:
    rows = [3, 1, 4]
    text = bundle.manifest.prompt.render([bundle.sids[row] for row in rows])
    tokens, used = PromptBuilder(bundle).build(rows)
    assert tokens == bundle.tokenizer.encode(text).ids
    assert used == 3


def test_the_opening_ends_the_prompt(opening_bundle: Bundle) -> None:
    tokens, _ = PromptBuilder(opening_bundle).build([0])
    assert tokens[-1] == opening_bundle.tokenizer.token_to_id("<|sid_begin|>")
    assert tokens.count(tokens[-1]) == 2  # that of the history, and that of the answer


def test_profile_and_scene_are_rendered(scene_bundle: Bundle) -> None:
    build = PromptBuilder(scene_bundle).build
    text = scene_bundle.tokenizer.decode(build([0], {"age": "old"}, "cart")[0])
    assert text.startswith("age old in cart:")
    assert build([0], {"age": "old"}, "cart") != build([0], {"age": "old"}, "home")


@pytest.mark.parametrize("count", [0, 1, 40, 60, 61, 62, 63, 64, 65, 66, 100, 200])
def test_as_much_as_fits_of_the_latest(bundle: Bundle, count: int) -> None:
    rows = random.Random(count).choices(range(len(bundle.catalogue)), k=count)

    def expected(n: int) -> list[int]:
        text = bundle.manifest.prompt.render([bundle.sids[row] for row in rows[count - n :]])
        ids: list[int] = bundle.tokenizer.encode(text).ids
        return ids

    tokens, used = PromptBuilder(bundle).build(rows)
    assert tokens == expected(used)
    assert len(tokens) <= bundle.max_prompt_tokens
    assert used == count or len(expected(used + 1)) > bundle.max_prompt_tokens


def test_a_history_is_not_tokenised_again(bundle: Bundle) -> None:
    builder = PromptBuilder(bundle)
    tokenizer, calls = builder._tokenizer, []

    class Counting:
        def encode(self, text: str) -> Any:
            calls.append(text)
            return tokenizer.encode(text)

    builder._pieces._tokenizer = Counting()  # type: ignore[assignment]
    for seed in range(30):
        builder.build(random.Random(seed).choices(range(len(bundle.catalogue)), k=200))
    assert not calls


@pytest.mark.parametrize("separator", ["", ", ", " ", ",", "\n- "])
@pytest.mark.parametrize("kind", ["byte-level", "metaspace"])
def test_any_history_equals_its_text_in_tokens(
    bundle: Bundle, opening_bundle: Bundle, separator: str, kind: str
) -> None:
    rng = random.Random(separator)
    for plain in (bundle, opening_bundle):
        template = plain.manifest.prompt.model_copy(update={"separator": separator})
        manifest = plain.manifest.model_copy(update={"prompt": template})
        tokenizer = Tokenizer.from_str(plain.tokenizer.to_str())
        if kind == "metaspace":
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        changed = replace(plain, manifest=manifest, tokenizer=tokenizer)
        builder = PromptBuilder(changed)
        for count in (0, 1, 2, 3, 17):
            rows = rng.choices(range(len(plain.catalogue)), k=count)
            text = template.render([plain.sids[row] for row in rows]) + plain.spec.opening
            assert builder.build(rows) == (tokenizer.encode(text).ids, count)


def test_a_tokenizer_that_does_not_cut_at_sids_is_refused(bundle: Bundle) -> None:
    def tokenizer(pre_tokenizer: Any) -> Tokenizer:
        words = bundle.tokenizer.get_vocab()
        made = Tokenizer(models.WordLevel({**words, "?": len(words)}, unk_token="?"))
        made.pre_tokenizer = pre_tokenizer
        return made

    # One word for each text between spaces: SIDs side by side are none.
    with pytest.raises(SidError, match="does not cut"):
        PromptBuilder(replace(bundle, tokenizer=tokenizer(pre_tokenizers.WhitespaceSplit())))


def test_a_profile_without_room_is_refused(bundle: Bundle, scene_bundle: Bundle) -> None:
    # Without declared fields a profile renders whatever it is given.
    template = scene_bundle.manifest.prompt.model_copy(update={"profile": ()})
    manifest = scene_bundle.manifest.model_copy(update={"prompt": template})
    builder = PromptBuilder(replace(scene_bundle, manifest=manifest))
    tokens, used = builder.build([1, 2], {"about": "x" * 230})
    assert used < 2
    assert len(tokens) <= scene_bundle.max_prompt_tokens
    with pytest.raises(InvalidInput) as caught:
        builder.build([1], {"about": "x" * 300})
    assert caught.value.field == "profile"


def test_a_tokenizer_that_was_saved_with_truncation(bundle: Bundle) -> None:
    bundle.tokenizer.enable_truncation(5)
    bundle.tokenizer.enable_padding(length=300)
    tokens, _ = PromptBuilder(bundle).build([1, 2, 3])
    assert 5 < len(tokens) < 300
