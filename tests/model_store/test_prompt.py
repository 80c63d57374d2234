"""Profile, scene and history become text."""

import pytest
from pydantic import ValidationError

from model_store.prompt import ProfileField, PromptTemplate, TitleTasks

CHINESE = PromptTemplate(
    text="用户画像：{profile}。场景：{scene}。点击历史：{history}，下一个点击的商品是",
    separator="、",
    profile=(
        ProfileField(name="gender", text="性别{}", values=("男", "女"), unknown="未知"),
        ProfileField(name="city", text="住在{}"),
    ),
    profile_separator="，",
)


class TestRender:
    def test_history_in_order_with_the_separator(self) -> None:
        template = PromptTemplate(text="saw {history} then ", separator=" | ")
        assert template.render(["<a_1>", "<a_2>", "<a_0>"]) == "saw <a_1> | <a_2> | <a_0> then "

    def test_no_history(self) -> None:
        assert PromptTemplate(text="saw {history}.").render([]) == "saw ."

    def test_one_event_needs_no_separator(self) -> None:
        assert PromptTemplate(text="{history}").render(["<a_1>"]) == "<a_1>"

    def test_chinese(self) -> None:
        text = CHINESE.render(
            ["<a_1><b_2>", "<a_3><b_4>"], {"gender": "女", "city": "北京"}, "搜索"
        )
        assert text == (
            "用户画像：性别女，住在北京。场景：搜索。"
            "点击历史：<a_1><b_2>、<a_3><b_4>，下一个点击的商品是"
        )

    def test_around_is_what_stands_before_and_after_the_history(self) -> None:
        before, after = CHINESE.around({"gender": "男"}, "首页")
        assert before.endswith("点击历史：")
        assert after == "，下一个点击的商品是"
        history = ["<a_1>", "<a_2>"]
        assert CHINESE.render(history, {"gender": "男"}, "首页") == (
            before + "<a_1>、<a_2>" + after
        )

    def test_placeholders_behind_the_history(self) -> None:
        template = PromptTemplate(text="{history} by {profile} in {scene}")
        assert template.render(["x"], {"age": "7"}, "promo") == "x by age: 7 in promo"

    def test_a_placeholder_may_come_twice(self) -> None:
        template = PromptTemplate(text="{scene} {history} {scene}")
        assert template.render(["x"], scene="s") == "s x s"

    def test_no_scene_is_empty(self) -> None:
        assert PromptTemplate(text="[{scene}] {history}").render(["x"]) == "[] x"

    def test_other_braces_are_text(self) -> None:
        assert PromptTemplate(text="{a} {} {history} {0}").render(["x"]) == "{a} {} x {0}"


class TestProfile:
    def test_a_value_that_is_not_declared_reads_as_unknown(self) -> None:
        assert "性别未知，住在北京" in CHINESE.render([], {"gender": "x", "city": "北京"})

    def test_a_value_that_is_missing_reads_as_unknown(self) -> None:
        assert "性别未知，住在unknown" in CHINESE.render([])

    def test_a_field_that_is_not_declared_is_left_out(self) -> None:
        assert "secret" not in CHINESE.render([], {"shoe": "secret"})

    def test_declared_fields_keep_their_order(self) -> None:
        assert "性别男，住在上海" in CHINESE.render([], {"city": "上海", "gender": "男"})

    def test_without_declared_fields_the_profile_renders_as_it_comes(self) -> None:
        template = PromptTemplate(text="{profile};{history}", profile_separator=" & ")
        assert template.render([], {"b": "1", "a": "2"}) == "b: 1 & a: 2;"


class TestValuesThatLookLikePlaceholders:
    @pytest.mark.parametrize("value", ["{history}", "{scene}", "{profile}", "{}", r"\1 \g<0>"])
    def test_stay_what_they_are(self, value: str) -> None:
        template = PromptTemplate(
            text="{profile}/{scene}/{history}",
            profile=(ProfileField(name="city", text="in {}"),),
        )
        text = template.render(["h1", value], {"city": value}, value)
        assert text == f"in {value}/{value}/h1, {value}"

    def test_in_the_name_of_a_field(self) -> None:
        template = PromptTemplate(text="{profile}/{history}")
        assert template.render(["h"], {"{scene}": "{history}"}, "s") == "{scene}: {history}/h"


class TestTemplateRefused:
    @pytest.mark.parametrize("text", ["", "no place", "{history} {history}", "{ history }"])
    def test_unless_the_history_stands_there_once(self, text: str) -> None:
        with pytest.raises(ValidationError, match=r"must contain \{history\} exactly once"):
            PromptTemplate(text=text)

    def test_unknown_setting(self) -> None:
        with pytest.raises(ValidationError, match="seperator"):
            PromptTemplate.model_validate({"text": "{history}", "seperator": ";"})


class TestTitleTasks:
    TASKS = TitleTasks(sid_to_title="what is {sid}?", title_to_sid="which is {title}?")

    def test_ask(self) -> None:
        assert self.TASKS.ask_title("<a_1><b_2>") == "what is <a_1><b_2>?"
        assert self.TASKS.ask_sid("a {title} of its own, {sid}") == (
            "which is a {title} of its own, {sid}?"
        )

    @pytest.mark.parametrize(
        ("sid_to_title", "title_to_sid", "complaint"),
        [
            ("what is it?", "{title}", r"\{sid\} exactly once"),
            ("{sid}", "{title} {title}", r"\{title\} exactly once"),
            ("{title}", "{title}", r"\{sid\} exactly once"),
        ],
    )
    def test_each_needs_its_place(
        self, sid_to_title: str, title_to_sid: str, complaint: str
    ) -> None:
        with pytest.raises(ValidationError, match=complaint):
            TitleTasks(sid_to_title=sid_to_title, title_to_sid=title_to_sid)

    def test_a_template_may_do_without(self) -> None:
        """As every bundle does that was made before there were any."""
        template = PromptTemplate.model_validate({"text": "{history}"})
        assert template.tasks is None
        assert "tasks" not in template.model_dump()
        tasks = self.TASKS.model_dump()
        assert (
            PromptTemplate.model_validate({"text": "{history}", "tasks": tasks}).tasks == self.TASKS
        )
