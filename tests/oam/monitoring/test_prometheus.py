"""The dashboard and the alerts, with a real Prometheus and a real network."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from daitn.files.state_folder import CenterState
from tests.oam.monitoring.scene import Watched
from tests.scenes.prometheus import Prometheus
from tests.scenes.waiting import wait_until

pytestmark = pytest.mark.processes

MONITORING = Path(__file__).parents[3] / "deploy/monitoring"
RULES = MONITORING / "alerts.yml"
_NAME = re.compile(r"\b(?:daitn|process|python)_[a-z0-9_]+\b")


def dashboard() -> list[str]:
    """All expressions of the dashboard, with its variables filled in."""
    plain = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    found = [target["expr"] for panel in plain["panels"] for target in panel.get("targets", ())]
    return [one.replace("$site", ".*").replace("$__rate_interval", "1m") for one in found]


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def names(expressions: list[str]) -> set[str]:
    return {name for expression in expressions for name in _NAME.findall(expression)}


@pytest.fixture(scope="module")
def prometheus(watched: Watched, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """As `deploy/monitoring/prometheus.yml` says, but that it scrapes and judges each second."""
    folder = tmp_path_factory.mktemp("prometheus")
    shutil.copytree(MONITORING, folder / "monitoring")
    config = folder / "monitoring/prometheus.yml"
    config.write_text(config.read_text().replace("15s", "1s"))
    targets = watched.folder / "state/center" / CenterState.ALL_TARGETS
    (folder / "monitoring/targets/network.json").symlink_to(targets)
    with Prometheus(config, folder) as prometheus:
        wait_until(lambda: len(prometheus.ask('up{job="daitn"} == 1')) == len(watched.sites))
        yield prometheus


def test_every_process_is_scraped_under_its_name(watched: Watched, prometheus: Prometheus) -> None:
    up = prometheus.ask('up{job="daitn"}')
    assert {one["metric"]["site"] for one in up} == set(watched.sites)
    assert {one["metric"]["process"] for one in up} == {"center", "node"}


def test_dashboard_and_alerts_name_metrics_that_there_are(
    watched: Watched, prometheus: Prometheus
) -> None:
    wait_until(lambda: prometheus.ask("daitn_verifier_findings > 0"))
    known = set(prometheus.api("label/__name__/values"))
    wanted = names(dashboard() + [rule["expr"] for rule in alerts()])
    assert wanted <= known
    # Labels of metrics do not collide with those of targets.
    assert not [label for label in prometheus.api("labels") if label.startswith("exported_")]


def test_every_panel_can_be_drawn(watched: Watched, prometheus: Prometheus) -> None:
    watched.ask()
    watched.ask(constraints={"autonomous": True})
    empty = dashboard()

    def filled() -> bool:
        empty[:] = [expression for expression in empty if not prometheus.ask(expression)]
        return not empty

    try:
        wait_until(filled)
    finally:
        assert not empty


def test_alerts_are_sound_and_only_true_ones_are_raised(
    watched: Watched, prometheus: Prometheus
) -> None:
    checked = subprocess.run(
        ["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr

    def rules() -> list[Any]:
        return list(prometheus.api("rules")["groups"][0]["rules"])

    assert {rule["name"] for rule in rules()} == {rule["alert"] for rule in alerts()}
    wait_until(lambda: all(rule["health"] != "unknown" for rule in rules()))
    now = rules()
    assert {rule["health"] for rule in now} == {"ok"}
    # One data set allows few visits; all else is well.
    assert {r["name"] for r in now if r["state"] == "firing"} == {"DaitnPrivacyBudgetLow"}
    (alert,) = next(r for r in now if r["name"] == "DaitnPrivacyBudgetLow")["alerts"]
    assert "west/scans allows" in alert["annotations"]["summary"]


def test_a_process_that_is_gone_raises_an_alert(watched: Watched, prometheus: Prometheus) -> None:
    def raised() -> set[str]:
        rules = prometheus.api("rules")["groups"][0]["rules"]
        return {rule["name"] for rule in rules if rule["state"] != "inactive"}

    watched.network.processes.kill("hub")
    wait_until(lambda: raised() >= {"DaitnProcessDown", "DaitnSitesLost"})
    watched.network.mend()
    watched.ready()
