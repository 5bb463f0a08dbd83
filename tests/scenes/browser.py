"""A real browser, headless, and a page that counts what its user clicks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect, sync_playwright

__all__ = ["AXE", "User", "browser"]

AXE = Path(__file__).parents[2] / "web/node_modules/axe-core/axe.min.js"
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-unsafe-swiftshader",
)
_WITHIN_MS = 60_000.0


@contextmanager
def browser() -> Iterator[Any]:
    """A running browser. Fails, and says what to install, where the machine has none."""
    found = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    assert found, "no browser is installed: apt-get install chromium"
    expect.set_options(timeout=_WITHIN_MS)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=list(_FLAGS))
        try:
            yield running
        finally:
            running.close()


class User:
    """Somebody at a page, from the overview on."""

    def __init__(self, page: Page, url: str) -> None:
        """`url`: of the dashboard."""
        self.page = page
        self.clicks = 0
        self.errors: list[str] = []
        page.set_default_timeout(_WITHIN_MS)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._hear)
        self._url = url

    def open(self, path: str = "/") -> None:
        """Go to a page by its address."""
        self.page.goto(self._url + path)
        self.page.wait_for_selector("h1")
        self.settle()

    def click(self, name: str, *, role: str = "link", exact: bool = True) -> None:
        self.page.get_by_role(role, name=name, exact=exact).first.click()  # type: ignore[arg-type]
        self.clicks += 1
        self.settle()

    def sees(self, *texts: str) -> None:
        """Wait until the page shows these."""
        for text in texts:
            self.page.get_by_text(text).first.wait_for()

    def settle(self) -> None:
        """Wait until nothing is being loaded."""
        self.page.wait_for_selector("text=Loading…", state="detached")

    def violations(self) -> list[str]:
        """What axe finds against accessibility, as `rule: where`."""
        self.page.evaluate(AXE.read_text())
        found = self.page.evaluate("() => axe.run()")
        return [
            f"{one['id']}: {[node['target'] for node in one['nodes']]}"
            for one in found["violations"]
        ]

    def _hear(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)
