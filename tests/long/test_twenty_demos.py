"""The demo reaches its targets every time: twenty runs, each of which must."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.scenes.demo import run_demo

pytestmark = [pytest.mark.processes, pytest.mark.long, pytest.mark.timeout(2600)]

RUNS = 20


@pytest.mark.parametrize("run", range(1, RUNS + 1))
def test_the_planned_route_reaches_both_targets(run: int, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_demo(out, "--no-baselines")
    report = json.loads((out / "report.json").read_text())
    assert {o["name"] for o in report["objectives"]} == {"broad", "expert"}
    assert all(o["reached"] >= o["target"] for o in report["objectives"])
