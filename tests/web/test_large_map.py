"""The map of networks that are larger than a test can start: every difference is shown."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.scenes.browser import User
from tests.scenes.large_map import LargeMap, large_map
from tests.scenes.waiting import wait_until

pytestmark = pytest.mark.slow

SITES = 10_000
INK = """
  (name) => {
    const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  }
"""
PIXEL = """
  async (png) => {
    const image = new Image();
    image.src = "data:image/png;base64," + png;
    await image.decode();
    const canvas = new OffscreenCanvas(1, 1).getContext("2d");
    canvas.drawImage(image, 0, 0);
    return [...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)];
  }
"""


@pytest.fixture(scope="module")
def network() -> Iterator[LargeMap]:
    with large_map(SITES, links_each=4) as made:
        yield made


@pytest.fixture
def user(network: LargeMap, chromium: Browser) -> Iterator[User]:
    page = chromium.new_page()
    user = User(page, network.url)
    yield user
    page.close()
    assert not user.errors


def load_of(user: User, site: str) -> Any:
    panel = user.page.get_by_role("region", name=site, exact=True)
    return panel.locator("dt:has-text('load') + dd").text_content()


def test_ten_thousand_sites_are_drawn_and_follow_what_changes(
    network: LargeMap, user: User
) -> None:
    user.open("/map?site=site-7")
    user.sees(f"{SITES} sites")
    assert user.page.locator(".map canvas").count() > 0
    for _ in range(3):
        network.change(loads=SITES)
    network.change(joins=(SITES,))
    user.sees(f"{SITES + 1} sites")
    # The last difference is shown, and so are all before it.
    assert load_of(user, "site-7") == f"{100 * network.load('site-7'):.0f} %"
    user.page.get_by_label("Find a site").fill(f"site-{SITES}")
    user.page.get_by_role("heading", name=f"site-{SITES}").wait_for()


def test_what_happens_while_the_map_is_on_its_way_is_not_missed(
    network: LargeMap, user: User
) -> None:
    first = SITES + 100
    network.joining_meanwhile = (first,)
    user.open(f"/map?site=site-{first}")
    user.page.get_by_role("heading", name=f"site-{first}").wait_for()
    network.change(joins=(first + 1,))
    user.page.get_by_label("Find a site").fill(f"site-{first + 1}")
    user.page.get_by_role("heading", name=f"site-{first + 1}").wait_for()


def test_a_site_is_found_by_the_mouse_where_it_was_dragged_to(chromium: Browser) -> None:
    """While a map moves it is not drawn whole; once it stands still, it is."""
    with large_map(1, links_each=0) as network:
        page = chromium.new_page()
        user = User(page, network.url)
        user.open("/map")
        user.sees("1 sites")
        box = page.locator(".map .sigma-mouse").bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x + 40, y + 30)
        page.mouse.down()
        page.mouse.move(x - 60, y + 90, steps=10)
        page.wait_for_timeout(1000)  # Let go at once, it would glide on.
        page.mouse.up()
        expect(page.locator(".map .sigma-labels")).to_be_visible()
        page.wait_for_timeout(1000)  # Nor is it a double click.
        page.mouse.click(x - 100, y + 60)
        user.page.get_by_role("heading", name="site-0").wait_for()
        page.close()
        assert not user.errors


def test_the_map_turns_light_and_dark_with_the_system_and_stays_where_it_is(
    chromium: Browser,
) -> None:
    with large_map(1, links_each=0) as network:
        page = chromium.new_page(color_scheme="light")
        user = User(page, network.url)
        user.open("/map")
        user.sees("1 sites")
        box = page.locator(".map .sigma-mouse").bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x - 100, y + 60, steps=10)
        page.wait_for_timeout(1000)  # Let go at once, it would glide on.
        page.mouse.up()
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            good = page.evaluate(INK, "--good")
            wait_until(lambda good=good: colour_at(page, x - 100, y + 60) == good)  # type: ignore[misc]
            legend = page.locator(".legend circle").first
            expect(legend).to_have_css("fill", f"rgb({', '.join(map(str, good))})")
        page.close()
        assert not user.errors


def colour_at(page: Page, x: float, y: float) -> Any:
    one = {"x": x, "y": y, "width": 1, "height": 1}
    return page.evaluate(PIXEL, base64.b64encode(page.screenshot(clip=one)).decode())  # type: ignore[arg-type]
