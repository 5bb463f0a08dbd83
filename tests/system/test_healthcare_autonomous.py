"""The paper's scenario without a control centre: the model finds its own way."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from daitn.cli.demo.scenario import write_scenario
from daitn.learning.corpora.prepare import prepare
from tests.scenes.forwarders import travelling
from tests.scenes.waiting import wait_until

from .conftest import running

pytestmark = [pytest.mark.processes, pytest.mark.long, pytest.mark.timeout(1500)]


def test_the_model_reaches_both_targets_by_itself(tmp_path: Path) -> None:
    prepared = prepare(tmp_path / "data", None)
    path = write_scenario(tmp_path, tmp_path / "data", prepared)
    travelling(path)
    network = running(tmp_path, path)
    try:
        network.processes.kill("center")
        home = next(node for node in network.processes.nodes if node.site == "home")
        at = ("--site", "home", "--center", home.listen[0])
        wait_until(
            lambda: (
                network.daitn("ping", *at, "-n", "1", "--data", "medicine/neurology").returncode
                == 0
            )
        )
        began_s = time.monotonic()
        intent = str(tmp_path / "healthcare.yaml")
        ended = network.daitn("train", "-f", intent, "--autonomous", *at, "--watch")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "every objective holds" in ended.stdout
        assert "mpvu-broad" in ended.stdout
        assert "mpvu-expert" in ended.stdout
        assert time.monotonic() - began_s < 900
    finally:
        network.processes.stop()
