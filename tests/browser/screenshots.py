"""`make screenshots`: the page as docs/playground/ shows it, of a service of its own.

Nothing in them is random, so that they change only where the page or the model does, but for the
times that the service took. Everything drawn by the fonts of whoever runs it.
"""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from bench.served import served
from tests.system import program

OUT = Path(__file__).parents[2] / "docs" / "playground"
USER = "mei"
HISTORY = ("p00596", "p00044", "p01068", "p01988")
COLORS = 256
GAP = 20


@dataclass(frozen=True, slots=True)
class Picture:
    name: str
    width: int
    height: int
    scheme: str

    @property
    def phone(self) -> bool:
        return self.width < 500


PICTURES = [
    Picture(f"{size}-{scheme}", width, height, scheme)
    for size, width, height in (("desktop", 1440, 1240), ("phone", 375, 780))
    for scheme in ("light", "dark")
]


def main() -> None:
    OUT.mkdir(exist_ok=True)
    with served(None, 1, {}) as one, sync_playwright() as playwright:
        tell(one.url)
        # Root has no sandbox of its own to give away.
        browser = playwright.chromium.launch(
            executable_path=program("chromium"), args=["--no-sandbox"]
        )
        for picture in PICTURES:
            path = OUT / f"{picture.name}.png"
            take(browser, one.url, picture).quantize(COLORS, kmeans=2).save(path, optimize=True)
            print(f"{path.relative_to(Path.cwd())}: {path.stat().st_size // 1024} KB")
        browser.close()


def tell(url: str) -> None:
    """What the user in the pictures has done."""
    events = [
        {"event_id": str(n), "user_id": USER, "item_id": item, "timestamp": 1_790_000_000 + 900 * n}
        for n, item in enumerate(HISTORY)
    ]
    httpx.post(f"{url}/v1/events", json={"events": events}).raise_for_status()


def take(browser: Browser, url: str, picture: Picture) -> Image.Image:
    context = browser.new_context(
        viewport={"width": picture.width, "height": picture.height},
        color_scheme="dark" if picture.scheme == "dark" else "light",
        is_mobile=picture.phone,
        has_touch=picture.phone,
        locale="en-GB",
        timezone_id="UTC",
    )
    page = context.new_page()
    page.goto(f"{url}/#{USER}")
    expect(page.locator("#answer-A .ranked > li")).to_have_count(10)
    expect(page.locator(".beam")).to_be_attached()
    shown = phone(page, picture) if picture.phone else desktop(page)
    context.close()
    return shown


def desktop(page: Page) -> Image.Image:
    """Items up to a price, and the way of the second one through the beam."""
    page.get_by_role("button", name="Add a filter").click()
    page.get_by_label("Attribute").select_option("price")
    page.get_by_label("Test").select_option("lte")
    page.get_by_label("Value").fill("300")
    with page.expect_response("**/v1/recommendations"):
        page.get_by_label("Value").press("Enter")
    expect(page.locator(".beam .mark.ineligible").first).to_be_attached()
    page.get_by_label("Value").blur()
    page.locator(".ranked > li").nth(1).hover()
    return Image.open(BytesIO(page.screenshot())).convert("RGB")


def phone(page: Page, picture: Picture) -> Image.Image:
    """Three screens of it side by side: the user, the items, the beam."""
    whole = Image.open(BytesIO(page.screenshot(full_page=True))).convert("RGB")
    tops = [0]
    for part in (".facts", ".behind"):
        box = page.locator(part).bounding_box()
        assert box is not None
        tops.append(round(box["y"]) - 40)
    shown = Image.new(
        "RGB", (3 * picture.width + 2 * GAP, picture.height), whole.getpixel((2, picture.height))
    )
    for place, top in enumerate(tops):
        screen = whole.crop((0, top, picture.width, min(top + picture.height, whole.height)))
        shown.paste(screen, (place * (picture.width + GAP), 0))
    return shown


if __name__ == "__main__":
    main()
