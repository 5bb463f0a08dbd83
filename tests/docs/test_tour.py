"""The tour: its pictures are those that are taken, small enough to be read on the way."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from tests.docs.pages import DOCS
from tests.docs.tour import STOPS, WIDTH, photograph

MOST_BYTES = 600_000


def test_the_tour_shows_every_picture_that_is_taken_for_it() -> None:
    shown = re.findall(r"\]\(\.\./images/(.+?)\)", (DOCS / "tutorial/tour.md").read_text())
    assert shown == [stop.file for stop in STOPS]
    assert sum((DOCS / "images" / file).stat().st_size for file in shown) < MOST_BYTES


@pytest.mark.long
@pytest.mark.processes
@pytest.mark.timeout(1800)
def test_its_pictures_are_taken_of_a_demo(tmp_path: Path) -> None:
    photograph(tmp_path)
    taken = {file.name: file.read_bytes()[16:24] for file in tmp_path.iterdir()}
    assert taken == {stop.file: struct.pack(">II", WIDTH, stop.height) for stop in STOPS}
