"""The site of the documentation: built without a warning, complete, read without a network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from playwright.sync_api import Page

from scripts.site.__main__ import build
from tests.docs.pages import DOCS, pages
from tests.scenes.browser import browser

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "html"
    assert build(folder) == 0
    return folder


@pytest.fixture
def reader(site: Path) -> Iterator[Page]:
    """Somebody without a network, who opens the site from a folder."""
    with browser() as running:
        page = running.new_page()
        page.set_default_timeout(60_000)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.get_by_role("heading", name="DA-ITN documentation").wait_for()
        yield page
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def test_every_page_is_there_and_every_link_of_the_site_leads_somewhere(site: Path) -> None:
    made = sorted(site.rglob("*.html"))
    for page in pages():
        assert (site / page.relative_to(DOCS)).with_suffix(".html") in made
    for file in made:
        text = file.read_text()
        for target in re.findall(r'(?:href|src)="([^"#?:]+)(?:[#?][^"]*)?"', text):
            assert (file.parent / unquote(target)).exists(), f"{file}: {target}"


def test_sources_that_pages_link_to_are_pages_themselves(site: Path) -> None:
    module = (site / "checkout/src/daitn/control/jobs/machine.py.html").read_text()
    assert "def handle(" in module
    package = (site / "checkout/src/daitn/control/jobs.html").read_text()
    assert '<a href="jobs/machine.py.html">machine.py</a>' in package


def test_it_is_searched_and_its_menu_has_every_page(reader: Page) -> None:
    assert reader.locator(".sidebar-tree a").count() == len(pages()) - 1  # It is the other one.
    reader.get_by_role("textbox", name="Search").fill("cordon")
    reader.keyboard.press("Enter")
    reader.locator("#search-results").get_by_role("link", name="Keep a network running").wait_for()


@pytest.mark.parametrize("link", ["nowhere.md", "../nothing.py", "#no-part"])
def test_a_link_that_leads_nowhere_is_an_error(link: str, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "README.md").write_text(f"# Docs\n\nSee [this]({link}).\n")
    assert build(tmp_path / "html", docs) != 0
