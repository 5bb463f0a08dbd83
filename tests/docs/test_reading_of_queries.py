"""Guides of sites, of serving and asking, and of a recipe of one's own, done by a reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.reader import QUERYING_WALK, walk


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_reader_gets_through_the_guides_of_sites_and_queries(tmp_path: Path) -> None:
    told = walk(QUERYING_WALK, tmp_path)
    assert "metals-1  reached" in told
    assert "nearest-1  reached" in told
    assert told.count("exit code 3") == 3
    assert "signed by a control centre" in told
    assert "allows no more visits of me today" in told
    assert "It depends." in told
    assert told.count("\ngold\n") == 2
    assert "north" in told
