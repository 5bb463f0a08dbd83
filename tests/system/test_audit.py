"""A data owner's policy in a real network: what it refuses, and who came, as its audit log says."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.scenes.breast_cancer import write_intent, write_network
from tests.scenes.waiting import wait_until

from .conftest import Network, running

pytestmark = [pytest.mark.processes, pytest.mark.slow]

_HOUR_UTC = time.gmtime().tm_hour
POLICY = {
    "recipes": ["classifier"],
    "owners": ["acme"],
    "purposes": ["research"],
    "time_zone": f"Etc/GMT{_HOUR_UTC - 12:+d}",  # No day ends while this runs; the sign is POSIX's.
    "limits": {"visits_per_day": 1},
}
SHORT = [{"site": "north", "examples": 40}, {"site": "north", "examples": 40}]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """North has a policy in a file of its own, and the test set a limit."""
    folder = tmp_path_factory.mktemp("guarded")
    config = write_network(folder)
    plain = yaml.safe_load(config.read_text())
    nodes = {node["site"]: node for node in plain["nodes"]}
    nodes["north"]["datasets"][0]["policy"] = "policy.yaml"
    nodes["mpvu"]["tests"][0]["policy"] = {"recipes": ["*"], "label_values": False}
    config.write_text(yaml.safe_dump(plain))
    (folder / "policy.yaml").write_text(yaml.safe_dump(POLICY))
    network = running(folder, config)
    yield network
    network.processes.stop()


def shown(network: Network, site: str, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = network.json(
        "audit", "show", str(network.folder / "state" / site), *options
    )
    return found


def test_a_second_visit_is_refused_and_the_owner_sees_who_came(
    guarded: Network, tmp_path: Path
) -> None:
    intent = write_intent(
        tmp_path,
        purpose="research",
        route=SHORT,
        objectives=[{"name": "tumours", "topic": "oncology/breast", "at_least": 1.0}],
    )
    ended = guarded.daitn("train", "-f", str(intent), "--insist", "--watch", "--json")
    job = json.loads(ended.stdout)
    assert ended.returncode == 1, ended.stderr
    assert len(job["route"]) == 1
    assert job["error"]["code"] == "Refused"
    assert "allows no more visits of acme today" in job["error"]["problem"]

    told = shown(guarded, "north")
    events = [entry["event"] for entry in told if entry["event"] != "countersigned"]
    assert events == ["started", "made", "begun", "visited", "refused"]
    made, visited = (e for e in told if e["event"] in ("made", "visited"))
    assert visited["owner"] == made["owner"] == "acme"
    assert visited["purpose"] == "research"
    assert visited["data"] == "data set biopsies"
    assert visited["job"] == job["job"]
    assert visited["model"] == job["route"][0]["model"]
    assert visited["size_bytes"] > 1000
    assert next(e for e in told if e["event"] == "begun")["examples"] == 40
    (refused,) = (e for e in told if e["event"] == "refused")
    assert refused["reason"] == job["error"]["problem"]
    assert shown(guarded, "north", "--owner", "stranger") == []
    table = guarded.daitn("audit", "show", str(guarded.folder / "state/north")).stdout
    assert "data set biopsies" in table

    measured = [e for e in shown(guarded, "mpvu") if e["event"] == "measured"]
    assert [list(e["values"]) for e in measured] == 2 * [["accuracy"]], "no value of a label"
    assert measured[-1]["values"]["accuracy"] == job["objectives"][0]["reached"]


def test_the_log_is_whole_and_the_control_centre_has_signed_it(guarded: Network) -> None:
    state = guarded.folder / "state/north"
    nodes = {n["descriptor"]["site"]: n["descriptor"] for n in guarded.json("get", "nodes")}
    key = nodes["north"]["public_key"]
    wait_until(lambda: guarded.json("audit", "verify", str(state))["countersigned"] > 0)
    checked = guarded.json("audit", "verify", str(state), "--key", key)
    assert checked["first"] == 1
    assert checked["public_key"] == key
    (file,) = (state / "audit").glob("*.jsonl")
    copy = guarded.folder / "copy.jsonl"
    copy.write_bytes(file.read_bytes().replace(b'"acme"', b'"acne"', 1))
    broken = guarded.daitn("audit", "verify", str(copy))
    assert broken.returncode == 5
    assert f"{copy}:2" in broken.stderr


def test_a_restart_forgets_no_visit(guarded: Network, tmp_path: Path) -> None:
    guarded.processes.kill("north")
    guarded.mend()
    intent = write_intent(tmp_path, name="again", purpose="research", route=SHORT[:1])
    ended = guarded.daitn("train", "-f", str(intent), "--insist", "--watch", "--json")
    job = json.loads(ended.stdout)
    assert job["route"] == []
    assert "allows no more visits" in job["detail"], ended.stdout
    events = [e["event"] for e in shown(guarded, "north") if e["event"] != "countersigned"]
    assert events[-2:] == ["made", "refused"]
    assert "started" in events[1:]


def test_planners_leave_out_a_site_of_another_purpose_and_limits_stay_private(
    guarded: Network, tmp_path: Path
) -> None:
    intent = write_intent(tmp_path, requirements=[{"quantity": "site", "one_of": ["north"]}])
    ended = guarded.daitn("train", "-f", str(intent), "--dry-run", "--json")
    assert ended.returncode == 3
    found = json.loads(ended.stdout)["rejections"]
    purpose = [no for no in found if no["filter"] == "purpose-allowed"]
    assert [no["candidate"] for no in purpose] == ["north/biopsies"]
    assert "does not allow models without a purpose; allowed: research" in purpose[0]["reason"]
    published = json.dumps(guarded.json("get", "nodes"))
    assert '"purposes": ["research"]' in published
    assert "visits_per_day" not in published
