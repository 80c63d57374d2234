"""What a person sees and does on the page at `/`."""

import json
import re
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from bench.served import served
from model_store.store import Store
from service.keys.key import digest, new_secret
from tests.browser.conftest import Open
from tests.tiny import make_bundle, random_items

PHONE = {"viewport": {"width": 375, "height": 800}, "has_touch": True, "is_mobile": True}


def somebody() -> str:
    return f"user-{uuid4().hex[:8]}"


def items(page: Page, side: str = "A") -> Locator:
    return page.locator(f"#answer-{side} .ranked > li")


def titles(page: Page, side: str = "A") -> list[str]:
    return items(page, side).locator(".title").all_inner_texts()


def history(page: Page) -> Locator:
    return page.get_by_role("list", name="History").get_by_role("listitem")


def settle(page: Page) -> None:
    """Waits until the last question is answered."""
    expect(page.locator("#answers")).not_to_have_attribute("aria-busy", "true")


def clicked(demo: str, user: str, *item_ids: str) -> None:
    events = [
        {"event_id": str(n), "user_id": user, "item_id": item_id, "timestamp": 1790000000 + n}
        for n, item_id in enumerate(item_ids)
    ]
    httpx.post(f"{demo}/v1/events", json={"events": events}).raise_for_status()


def test_a_user_with_a_history_gets_items_with_titles_scores_and_sids(
    open_page: Open, demo: str
) -> None:
    user = somebody()
    clicked(demo, user, "p02327", "p02147")
    page = open_page(user)
    expect(items(page)).to_have_count(10)
    expect(history(page)).to_have_count(2)
    asked = {"user_id": user, "k": 10, "beam_width": 20}
    answer = httpx.post(f"{demo}/v1/recommendations", json=asked).json()
    assert titles(page) == [item["title"] for item in answer["items"]]
    first = items(page).first
    expect(first).to_contain_text(f"score {answer['items'][0]['score']:.3f}")
    expect(first).to_contain_text("model")
    expect(page.get_by_text("answered by demo/1 in")).to_be_visible()
    assert history(page).first.inner_text() != history(page).last.inner_text()


def test_a_click_on_an_item_becomes_an_event_and_the_list_changes(
    open_page: Open, demo: str
) -> None:
    user = somebody()
    clicked(demo, user, "p02327", "p02147")
    page = open_page(user)
    expect(items(page)).to_have_count(10)
    before = titles(page)
    page.get_by_label("A click adds a").select_option(label="purchase")
    page.get_by_role("button", name=before[0], exact=True).first.click()
    expect(history(page)).to_have_count(3)
    expect(history(page).last).to_contain_text(before[0])
    expect(history(page).last).to_contain_text("purchase")
    expect(page.get_by_role("status")).to_contain_text(f"Added to the history: {before[0]}")
    settle(page)
    # What was bought is left out by default, and the model has more to go by.
    assert before[0] not in titles(page)
    stored = httpx.get(f"{demo}/v1/users/{user}/history").json()["events"]
    assert stored[-1]["type"] == "purchase"


def test_users_are_invented_with_a_history_and_without_and_forgotten(
    open_page: Open, demo: str
) -> None:
    page = open_page(somebody())
    expect(page.get_by_text("No events yet: a cold start")).to_be_visible()
    expect(items(page)).to_have_count(10)
    expect(page.get_by_text("because: no_history")).to_be_visible()
    page.get_by_role("button", name="Invent a user").click()
    expect(history(page)).to_have_count(4)
    expect(page.get_by_text("4 events in the prompt")).to_be_visible()
    user = page.get_by_label("User id").input_value()
    assert httpx.get(f"{demo}/v1/users/{user}/profile").json()["profile"]
    page.get_by_role("button", name="Forget this user").click()
    expect(page.get_by_text("No events yet: a cold start")).to_be_visible()
    assert httpx.get(f"{demo}/v1/users/{user}/profile").json()["profile"] == {}


def test_items_are_found_by_words_and_added(open_page: Open) -> None:
    page = open_page(somebody())
    page.get_by_label("Find items").fill("wireless mouse")
    found = page.locator("#found").get_by_role("button")
    expect(found.first).to_contain_text(re.compile("mouse", re.IGNORECASE))
    found.first.click()
    expect(history(page)).to_have_count(1)
    expect(history(page)).to_contain_text(re.compile("mouse", re.IGNORECASE))


def test_controls_shape_the_answer(open_page: Open, demo: str) -> None:
    user = somebody()
    clicked(demo, user, "p02327", "p02147")
    page = open_page(user)
    expect(items(page)).to_have_count(10)
    page.get_by_label("Items (k)").fill("5")
    page.get_by_label("Items (k)").press("Enter")
    expect(items(page)).to_have_count(5)
    page.get_by_label("Beams").fill("8")
    page.get_by_label("Beams").press("Enter")
    expect(page.get_by_text("8 kept").first).to_be_visible()
    page.get_by_label("Scene").select_option("home")
    page.get_by_label("性别").select_option("女")
    page.get_by_label("Leave out").select_option(label="all of the history")
    settle(page)
    gone = titles(page)[0]
    items(page).first.get_by_role("button", name="Exclude").click()
    expect(page.locator("#excluded")).to_contain_text(gone)
    settle(page)
    page.get_by_role("button", name="Add a filter").click()
    page.get_by_label("Attribute").select_option("price")
    page.get_by_label("Test").select_option("<")
    page.get_by_label("Value").fill("100")
    page.get_by_label("Value").press("Enter")
    settle(page)
    page.get_by_text("The answer, as JSON").click()
    answer = json.loads(page.locator("#answer-A details pre").last.text_content() or "")
    prices = [
        httpx.get(f"{demo}/v1/items/{item['item_id']}").json()["attributes"]["price"]
        for item in answer["items"]
    ]
    assert len(prices) == 5
    assert all(price < 100 for price in prices)
    assert gone not in titles(page)
    page.get_by_text("The request, as curl").click()
    curl = page.locator("#answer-A details pre").first.text_content() or ""
    sent = json.loads(curl.split("-d '")[1].removesuffix("'"))
    assert sent["scene"] == "home"
    assert sent["profile"] == {"性别": "女"}
    assert sent["exclude_seen"] == "history"
    assert sent["filter"] == {"price": {"lt": 100}}
    page.locator("#excluded").get_by_role("button").click()
    expect(page.locator("#excluded")).to_have_count(0)


def test_a_mistake_is_said_in_words(open_page: Open) -> None:
    page = open_page(somebody(), refused=(422,))
    page.get_by_role("button", name="Add a filter").click()
    page.get_by_label("Attribute").select_option("price")
    with page.expect_response("**/v1/recommendations"):
        page.get_by_label("Value").fill("cheap")
        page.get_by_label("Value").press("Enter")
    expect(page.locator("#answer-A .problem")).to_contain_text("filter.price.eq")


def test_the_beam_is_drawn_as_it_was(open_page: Open, demo: str) -> None:
    user = somebody()
    clicked(demo, user, "p02327", "p02147")
    page = open_page(user)
    expect(items(page)).to_have_count(10)
    asked = {"user_id": user, "k": 10, "beam_width": 20, "trace": True}
    beam = httpx.post(f"{demo}/v1/recommendations", json=asked).json()["beam"]
    # Where every SID was complete before the last level, that level shows nothing new.
    drawn = [level for level in beam if any(one["token"] for one in level["prefixes"])]
    assert len(drawn) >= 4
    for place, level in enumerate(drawn):
        kept = [one["token"] or "complete" for one in level["prefixes"] if one["fate"] == "kept"]
        x = page.locator(".beam .heading").nth(place).get_attribute("x")
        column = page.locator(f'.beam .mark.kept[transform^="translate({x},"] text:not(.rank)')
        assert column.all_text_contents() == [token.strip("<>") for token in kept]
        assert f"{level['considered']} considered" in page.locator(".beam .heading").nth(
            place
        ).evaluate("node => node.textContent")
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
    expect(items(page)).to_have_count(10)
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


def test_two_settings_side_by_side(open_page: Open, demo: str) -> None:
    user = somebody()
    clicked(demo, user, "p02327", "p02147")
    page = open_page(user)
    expect(items(page)).to_have_count(10)
    page.get_by_label("Side by side").check()
    expect(items(page, "B")).to_have_count(10)
    assert titles(page) == titles(page, "B")
    page.locator("#settings-B").get_by_label("Scene").select_option("promo")
    page.locator("#settings-B").get_by_label("Items (k)").fill("20")
    page.locator("#settings-B").get_by_label("Items (k)").press("Enter")
    expect(items(page, "B")).to_have_count(20)
    settle(page)
    expect(items(page)).to_have_count(10)
    moved = page.locator("#answer-B .moved").all_inner_texts()
    a, b = titles(page), titles(page, "B")
    expected = [
        "only here" if title not in a else a.index(title) - place for place, title in enumerate(b)
    ]
    marks = {0: "="} | {n: f"▲ {n}" for n in range(1, 20)} | {-n: f"▼ {n}" for n in range(1, 20)}
    assert len(set(a)) == 10
    assert moved == [one if isinstance(one, str) else marks[one] for one in expected]


def test_items_are_searched_by_words_and_described(open_page: Open) -> None:
    page = open_page(somebody())
    page.get_by_role("button", name="Search", exact=True).click()
    page.get_by_label("In words").fill("轻量化无线鼠标")
    page.get_by_role("button", name="Ask").click()
    expect(items(page)).to_have_count(10)
    assert sum("鼠标" in title for title in titles(page)) >= 5
    items(page).first.get_by_role("button", name="Describe").click()
    expect(items(page).first).to_contain_text("The model reads this SID as:")


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


def test_a_key_is_asked_for(open_page: Open) -> None:
    secret = new_secret()
    key = {"name": "page", "sha256": digest(secret), "scopes": ["read", "write"]}
    with served(None, 1, {"engine": "fake", "keys": json.dumps([key])}) as one:
        # 401 until there is a key, 403 for the list of versions that it may not see.
        page = open_page(url=one.url, refused=(401, 403))
        field = page.get_by_label("This service wants an API key")
        field.fill("wrong")
        page.get_by_role("button", name="Use it").click()
        expect(page.get_by_role("status")).to_contain_text("key")
        field.fill(secret)
        page.get_by_role("button", name="Use it").click()
        expect(items(page)).to_have_count(10)
        expect(field).to_be_hidden()


def test_two_versions_side_by_side(open_page: Open, tmp_path: Path) -> None:
    for seed in (1, 2):
        made = make_bundle(tmp_path, random_items(60, (4, 4, 4), seed=seed), name="shop")
    store = Store(made.path.parents[1])
    store.promote("shop", 2)
    with served(None, 1, {"engine": "fake", "store": store.root}) as service:
        user = somebody()
        httpx.post(f"{service.url}/v1/models", json={"version": 1}, timeout=60).raise_for_status()
        page = open_page(user, url=service.url)
        page.get_by_label("Side by side").check()
        page.locator("#settings-A").get_by_label("Version").select_option("shop/1")
        page.locator("#settings-B").get_by_label("Version").select_option("shop/2")
        expect(page.locator("#answer-A")).to_contain_text("answered by shop/1")
        expect(page.locator("#answer-B")).to_contain_text("answered by shop/2")


def test_it_can_be_left_out() -> None:
    with served(None, 1, {"engine": "fake", "playground": "false"}) as one:
        assert httpx.get(f"{one.url}/").status_code == 404
        assert httpx.get(f"{one.url}/playground/app.js").status_code == 404
        assert httpx.get(f"{one.url}/v1/bundle").status_code == 200
