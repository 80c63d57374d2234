"""What a person sees and does on the page at `/`."""

import json
import re
import shlex

import httpx
from playwright.sync_api import expect

from tests.browser.conftest import Open
from tests.browser.seen import clicked, history, items, settle, somebody, titles


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
    expect(page.get_by_text("so there is no beam to draw")).to_be_visible()
    page.get_by_role("button", name="Invent a user", exact=True).click()
    expect(history(page)).to_have_count(4)
    expect(page.get_by_text("4 events in the prompt")).to_be_visible()
    user = page.get_by_label("User id").input_value()
    assert httpx.get(f"{demo}/v1/users/{user}/profile").json()["profile"]
    page.get_by_role("button", name="Forget this user").click()
    expect(page.get_by_text("No events yet: a cold start")).to_be_visible()
    assert httpx.get(f"{demo}/v1/users/{user}/profile").json()["profile"] == {}
    page.get_by_role("button", name="Invent a cold user").click()
    expect(page.get_by_label("User id")).not_to_have_value(user)
    expect(page.get_by_text("No events yet: a cold start")).to_be_visible()


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
    expect(page.locator(".beam .heading").first).to_contain_text("8 of 128 kept")
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
    expect(items(page)).to_have_count(10)
    page.get_by_role("button", name="Search", exact=True).click()
    expect(items(page)).to_have_count(0)
    page.get_by_label("In words").fill("轻量化无线鼠标")
    page.get_by_role("button", name="Ask").click()
    expect(items(page)).to_have_count(10)
    assert sum("鼠标" in title for title in titles(page)) >= 5
    items(page).first.get_by_role("button", name="Describe").click()
    expect(items(page).first).to_contain_text("The model reads this SID as:")


def test_the_request_is_copied_as_curl_would_send_it(open_page: Open, demo: str) -> None:
    user = f"it's {somebody()}"
    clicked(demo, user, "p02327", "p02147")
    page = open_page(user, permissions=["clipboard-read", "clipboard-write"])
    expect(items(page)).to_have_count(10)
    page.get_by_text("The request, as curl").click()
    page.get_by_role("button", name="Copy").first.click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    words = shlex.split(page.evaluate("navigator.clipboard.readText()"))
    assert words[:2] == ["curl", "-s"]
    assert words[3::2] == ["-H", "-d"]
    name, _, value = words[4].partition(": ")
    answer = httpx.post(words[2], content=words[6].encode(), headers={name: value}).json()
    assert [item["title"] for item in answer["items"]] == titles(page)
