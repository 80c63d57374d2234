"""The beam as a person sees it, beside the items that it led to."""

import math
import re

import httpx
from playwright.sync_api import expect

from tests.browser.conftest import Open
from tests.browser.seen import clicked, items, somebody, titles


def test_the_beam_is_drawn_as_it_was(open_page: Open, demo: str) -> None:
    user = somebody()
    clicked(demo, user, "p02327", "p02147")
    page = open_page(user)
    expect(page.locator(".beam")).to_be_visible()
    asked = {"user_id": user, "k": 10, "beam_width": 20, "trace": True}
    beam = httpx.post(f"{demo}/v1/recommendations", json=asked).json()["beam"]
    # Where every SID was complete before the last level, that level shows nothing new.
    drawn = [level for level in beam if any(one["token"] for one in level["prefixes"])]
    assert len(drawn) >= 4
    for place, level in enumerate(drawn):
        kept = [one["token"] or "complete" for one in level["prefixes"] if one["fate"] == "kept"]
        x = page.locator(".beam .heading").nth(place).get_attribute("x")
        column = page.locator(f'.beam .mark.kept[transform^="translate({x},"] .token')
        assert column.all_text_contents() == [token.strip("<>") for token in kept]
        heading = page.locator(".beam .heading").nth(place)
        expect(heading).to_contain_text(f"{len(kept)} of {level['considered']} kept")
    first = [one for one in drawn[0]["prefixes"] if one["fate"] == "kept"]
    chances = [f"{100 * math.exp(one['log_probability']):.2g}%" for one in first]
    assert page.locator(".beam .percent").all_text_contents()[: len(first)] == chances
    assert page.locator(".beam .mark.dropped").count() > 0
    assert page.locator(".beam .mark.ineligible").count() == 0
    # What may not be shown is drawn as barred.
    page.get_by_role("button", name="Add a filter").click()
    page.get_by_label("Attribute").select_option("category")
    page.get_by_label("Value").fill("monitors")
    page.get_by_label("Value").press("Enter")
    expect(page.locator(".beam .mark.ineligible").first).to_be_visible()
    page.locator(".beam .mark.ineligible").first.hover()
    expect(page.locator(".detail")).to_contain_text("barred by eligibility")
    expect(page.locator(".detail")).to_contain_text("0 eligible items")


def test_the_beam_is_walked_with_the_keyboard(open_page: Open, demo: str) -> None:
    user = somebody()
    clicked(demo, user, "p02327", "p02147")
    page = open_page(user)
    expect(page.locator(".beam")).to_be_visible()
    page.locator(".beam .mark").first.focus()
    detail, first = page.locator(".detail"), page.locator(".detail code")
    start = first.inner_text()
    page.keyboard.press("ArrowRight")
    assert first.inner_text().startswith(start)
    assert first.inner_text() != start
    page.keyboard.press("ArrowLeft")
    assert first.inner_text() == start
    page.keyboard.press("ArrowDown")
    assert first.inner_text() != start
    expect(detail).to_contain_text("probability")
    # Its way from the first level on stands out.
    assert page.locator(".beam.lit .mark.on").count() >= 1


def test_an_item_lights_its_way_and_a_prefix_its_items(open_page: Open, demo: str) -> None:
    user = somebody()
    clicked(demo, user, "p02327", "p02147")
    page = open_page(user)
    expect(page.locator(".beam")).to_be_visible()
    asked = {"user_id": user, "k": 10, "beam_width": 20}
    shown = httpx.post(f"{demo}/v1/recommendations", json=asked).json()["items"]
    items(page).nth(1).hover()
    lit = page.locator(".beam.lit .mark.on")
    expect(lit.first).to_be_visible()
    prefixes = [label.split(":")[0] for label in lit.evaluate_all(LABELS)]
    tokens = re.findall("<[^>]*>", shown[1]["sid"])
    assert prefixes[:4] == ["".join(tokens[: level + 1]) for level in range(4)]
    expect(page.locator(".detail")).to_contain_text(f"#2 {titles(page)[1]}")
    page.locator(".beam .mark").first.hover()
    [first] = page.locator(".beam .mark").first.evaluate_all(LABELS)
    below = [item["sid"].startswith(first.split(":")[0]) for item in shown]
    assert [("lit" in (row.get_attribute("class") or "")) for row in items(page).all()] == below
    page.get_by_role("heading", name="Items").hover()
    expect(page.locator(".beam.lit")).to_have_count(0)


LABELS = "marks => marks.map((mark) => mark.getAttribute('aria-label'))"
