"""What a stranger may say of a user, and what must not get into a prompt that way."""

from dataclasses import replace

import pytest

from model_store.bundle import Bundle
from model_store.prompt import ProfileField, PromptTemplate
from service.errors import InvalidInput
from service.profiles import Profiles
from service.prompt import PromptBuilder
from tests.service.conftest import SCENE_TEMPLATE, MakeClient
from tests.tiny import make_bundle, random_items

FREE = (
    ProfileField(name="age", text="age {}", values=("young", "old")),
    ProfileField(name="likes", text="likes {}", unknown="<|endoftext|>"),
)


def speaking(bundle: Bundle, **changes: object) -> Bundle:
    template = bundle.manifest.prompt.model_copy(update=changes)
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"prompt": template}))


@pytest.mark.parametrize(
    ("fields", "profile", "field"),
    [
        ((), {"about": "tea"}, None),
        ((), {"about": "a < b, <a_, <a_3 >, </s"}, None),
        ((), {"about": "tea<a_3>"}, "profile.about"),
        ((), {"x": "y", "<b_1>": "tea"}, "profile.<b_1>"),
        ((), {"about": "<|endoftext|>"}, "profile.about"),
        (FREE, {"age": "old", "likes": "tea"}, None),
        (FREE, {"age": "<a_3>"}, None),  # renders as unknown
        (FREE, {"shoe": "<a_3>"}, None),  # is not rendered
        (FREE, {"age": "old", "likes": "<a_0>"}, "profile.likes"),
        (FREE[:1], {"age": "<a_3>"}, None),
    ],
)
def test_tokens_that_are_no_text_are_refused(
    scene_bundle: Bundle,
    fields: tuple[ProfileField, ...],
    profile: dict[str, str],
    field: str | None,
) -> None:
    bundle = speaking(scene_bundle, profile=fields)
    profiles, builder = Profiles(bundle), PromptBuilder(bundle)
    added = set(bundle.tokenizer.get_added_tokens_decoder())

    def no_text(said: dict[str, str]) -> int:
        return sum(token in added for token in builder.build([0], said)[0])

    if field is None:
        profiles.check(profile)
        nothing = {name: "" for name in profile if name == "likes"}
        assert no_text(profile) == no_text(nothing)
    else:
        with pytest.raises(InvalidInput, match="is no text to the model") as refused:
            profiles.check(profile)
        assert refused.value.field == field
        assert no_text(profile) > 0


def test_two_fields_do_not_make_a_token_together(scene_bundle: Bundle) -> None:
    parts = (ProfileField(name="a", text="{}"), ProfileField(name="b", text="{}"))
    profiles = Profiles(speaking(scene_bundle, profile=parts, profile_separator=""))
    with pytest.raises(InvalidInput) as refused:
        profiles.check({"a": "<a_", "b": "3>"})
    assert refused.value.field == "profile"
    assert profiles.merged({"a": "<a_"}, {"b": "3>"}) == {"b": "3>"}
    assert profiles.merged({"a": "<a_"}, {"b": "tea"}) == {"a": "<a_", "b": "tea"}


def test_over_http(make_client: MakeClient, tmp_path_factory: pytest.TempPathFactory) -> None:
    template = PromptTemplate.model_validate({**SCENE_TEMPLATE.model_dump(), "profile": ()})
    items = random_items(30, (4, 4, 4))
    bundle = make_bundle(tmp_path_factory.mktemp("free"), items, prompt=template)
    client = make_client(bundle=bundle.path)
    profile = {"about": "tea<a_1>"}
    for answer in (
        client.post("/v1/recommendations", json={"profile": profile, "scene": "home"}),
        client.put("/v1/users/ann/profile", json={"profile": profile}),
    ):
        assert answer.status_code == 422
        [error] = answer.json()["errors"]
        assert error["field"] == "profile.about"
        assert "'<a_1>'" in error["message"]
    assert client.get("/v1/users/ann/profile").json()["profile"] == {}
    told = {"profile": {"about": "tea"}, "scene": "home"}
    assert client.post("/v1/recommendations", json=told).status_code == 200
