"""The page for those who read Chinese, use a keyboard, a phone, a screen reader, or the dark."""

import json
import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import Open
from tests.browser.seen import PHONE, clicked, history, items, somebody, titles


def test_chinese(open_page: Open) -> None:
    page = open_page(somebody(), locale="zh-CN")
    expect(page.get_by_role("heading", name="用户")).to_be_visible()
    expect(page.get_by_role("button", name="提问")).to_be_visible()
    expect(items(page)).to_have_count(10)
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    page.get_by_role("button", name="Switch to English").click()
    expect(page.get_by_role("heading", name="User")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="User")).to_be_visible()


def test_everything_is_reached_with_the_keyboard(open_page: Open, demo: str) -> None:
    user = somebody()
    clicked(demo, user, "p02327")
    page = open_page(user)
    expect(items(page)).to_have_count(10)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the answers")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    first = titles(page)[0]
    expect(page.locator(":focus")).to_have_text(first)
    page.keyboard.press("Enter")
    expect(history(page)).to_have_count(2)


@pytest.mark.parametrize("size", [{}, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_kept_out(
    open_page: Open, demo: str, scheme: str, size: dict[str, object]
) -> None:
    """axe finds nothing serious, nothing is cut off, and light and dark differ."""
    user = somebody()
    clicked(demo, user, "p02327", "p02147")
    page = open_page(user, color_scheme=scheme, **size)
    page.get_by_label("Side by side").check()
    if size:
        page.get_by_text("Settings", exact=True).click()
    page.locator("#settings-A").get_by_role("button", name="Add a filter").click()
    page.get_by_label("Attribute").select_option("category")
    page.get_by_label("Value").fill("monitors")
    page.get_by_label("Value").press("Enter")
    expect(items(page, "B")).to_have_count(10)
    expect(page.locator(".beam .mark.ineligible").first).to_be_attached()
    found = Axe().run(page).response["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert not serious, json.dumps(serious, indent=1)[:3000]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 384) == (scheme == "dark")


def test_the_theme_is_chosen_and_kept(open_page: Open) -> None:
    page = open_page(somebody(), color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    button = page.get_by_role("button", name="Theme: system")
    button.click()
    page.get_by_role("button", name="Theme: light").click()
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == dark


def test_a_phone_has_room_for_it(open_page: Open, demo: str) -> None:
    user = somebody()
    clicked(demo, user, "p02327", "p02147")
    page = open_page(user, **PHONE)
    expect(items(page)).to_have_count(10)
    # Settings wait until they are wanted.
    expect(page.get_by_label("Items (k)")).to_be_hidden()
    page.get_by_text("Settings", exact=True).tap()
    page.get_by_label("Items (k)").fill("3")
    page.get_by_label("Items (k)").press("Enter")
    expect(items(page)).to_have_count(3)
    expect(page.locator(".beam")).to_be_visible()
    assert page.locator(".scroll").evaluate("node => node.scrollWidth <= node.clientWidth")
    page.locator(".beam .mark").first.tap()
    expect(page.locator(".detail")).to_contain_text("probability")
    items(page).first.get_by_role("button").first.tap()
    expect(history(page)).to_have_count(3)
