"""The guide of forwarders, done by a reader."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.reader import STEERED_WALK, walk


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_reader_runs_forwarders_and_a_model_finds_its_way(tmp_path: Path) -> None:
    told = walk(STEERED_WALK, tmp_path)
    assert re.search(r"home > (north|south) > (west|east)", told)
    assert "delivered here, for " in told
    assert "branch: standalone, not advised" in told
    assert re.search(r"branch > north > (west|east)", told)
    assert "metals-home-1  reached" in told
    assert (tmp_path / "model/lineage.json").is_file()
    assert (tmp_path / "copy/weights.safetensors").is_file()
    assert "job ores-branch-1 is " in told
    # Earlier ones may have been refused, while the network came up.
    assert told.rpartition("job together-home-1")[2].count("NO_WAY: home") == 5
    assert told.count("exit code 1") == 2
