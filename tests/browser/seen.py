"""What a person sees of the page, and what they did before."""

from uuid import uuid4

import httpx
from playwright.sync_api import Locator, Page, expect

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
