"""A real browser before a real service."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from bench.served import served
from tests.system import program

Open = Callable[..., Page]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    path = program("chromium")
    with sync_playwright() as playwright:
        # Root has no sandbox of its own to give away.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def demo() -> Iterator[str]:
    """The URL of a service with the demo bundle and the engine that serves it."""
    with served(None, 1, {}) as one:
        yield one.url


@pytest.fixture
def open_page(browser: Browser, demo: str) -> Iterator[Open]:
    """Opens the page as a new visitor; options are those of a browser context. At the end nothing
    may stand in its console, but that answers had a status that is to be expected."""
    contexts: list[BrowserContext] = []
    wrong: list[str] = []

    def open_(
        user: str = "", *, url: str = "", refused: Sequence[int] = (), **options: Any
    ) -> Page:
        def heard(message: ConsoleMessage) -> None:
            if not any(
                f"responded with a status of {status} " in message.text for status in refused
            ):
                wrong.append(message.text)

        context = browser.new_context(
            **{"locale": "en-GB", "viewport": {"width": 1360, "height": 900}} | options
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", heard)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto((url or demo) + (f"/#{user}" if user else "/"))
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not wrong
