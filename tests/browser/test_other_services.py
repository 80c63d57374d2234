"""The page of services that are not the demo as it starts by itself."""

import json
from pathlib import Path

import httpx
from playwright.sync_api import expect

from bench.served import served
from model_store.store import Store
from service.keys.key import digest, new_secret
from tests.browser.conftest import Open
from tests.browser.seen import items, somebody
from tests.tiny import make_bundle, random_items


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
        # Its prompts say nothing of titles.
        page.get_by_role("button", name="Search", exact=True).click()
        expect(page.locator(".ranked")).to_have_count(0)
        expect(
            page.get_by_text("This bundle cannot be searched in words: bundle shop 2")
        ).to_be_visible()


def test_it_can_be_left_out() -> None:
    with served(None, 1, {"engine": "fake", "playground": "false"}) as one:
        assert httpx.get(f"{one.url}/").status_code == 404
        assert httpx.get(f"{one.url}/playground/app.js").status_code == 404
        assert httpx.get(f"{one.url}/v1/bundle").status_code == 200
