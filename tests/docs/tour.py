"""Takes the tour's pictures, of the dashboard of a demo that runs for it.

`python -m tests.docs.tour [FOLDER]`, by default into `docs/images`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page

from tests.docs.pages import DOCS
from tests.scenes.browser import User, browser

__all__ = ["STOPS", "photograph"]

WIDTH = 1160
_JOB = "healthcare-1"
_MOST_LOOKS = 20


def _at(path: str) -> Callable[[User], None]:
    return lambda user: user.open(path)


def _at_its_beliefs(user: User) -> None:
    user.open(f"/jobs/{_JOB}")
    beliefs = user.page.get_by_role("region", name="Compared with the obvious plans")
    beliefs.evaluate("(panel) => panel.scrollIntoView()")


def _at_an_expert_s_query(user: User) -> None:
    user.open("/queries")
    answered = user.page.get_by_role("row").filter(has_text="medicine/neurology")
    answered.filter(has_text=re.compile("answered")).first.get_by_role("link").click()
    user.sees("Why there: the decision, replayed")
    user.settle()


@dataclass(frozen=True)
class Stop:
    """A picture: its name, how one comes to what it shows, and its height in pixels."""

    name: str
    go: Callable[[User], None]
    height: int

    @property
    def file(self) -> str:
        return f"tour-{self.name}.png"


STOPS = (
    Stop("overview", _at("/"), 620),
    Stop("map", _at("/map?site=ninds"), 700),
    Stop("job", _at(f"/jobs/{_JOB}"), 820),
    Stop("beliefs", _at_its_beliefs, 660),
    Stop("models", _at("/models"), 640),
    Stop("query", _at_an_expert_s_query, 600),
)


def photograph(folder: Path) -> None:
    """Run the demo, and take every picture once it has trained, deployed and answered."""
    with tempfile.TemporaryDirectory() as scratch, _demo(Path(scratch)) as says, browser() as seen:
        url = next(line.split()[-1] for line in says if line.startswith("dashboard: "))
        page = seen.new_page(viewport={"width": WIDTH, "height": 800}, color_scheme="light")
        user = User(page, url.partition("/#")[0])
        page.goto(url)
        page.wait_for_selector("nav")
        next(line for line in says if line.startswith("the network stays"))
        for stop in STOPS:
            page.set_viewport_size({"width": WIDTH, "height": stop.height})
            stop.go(user)
            (folder / stop.file).write_bytes(_still(page))


@contextmanager
def _demo(folder: Path) -> Iterator[Iterator[str]]:
    """A demo that keeps its network: what it says, line by line."""
    environment = {name: value for name, value in os.environ.items() if name != "DAITN_DATA"}
    environment |= {"HOME": str(folder), "COLUMNS": "1000", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "daitn.cli.app", "demo", "--serve", "-o", str(folder / "demo")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            yield iter(process.stdout.readline, "")
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()


def _still(page: Page) -> bytes:
    """The page, when it looks the same twice: maps and charts are drawn after it has loaded."""
    before, now = b"", page.screenshot()
    for _ in range(_MOST_LOOKS):
        if now == before:
            break
        page.wait_for_timeout(500)
        before, now = now, page.screenshot()
    return now


if __name__ == "__main__":
    photograph(Path(sys.argv[1]) if sys.argv[1:] else DOCS / "images")
