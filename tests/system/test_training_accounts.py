"""What a training job used is in the accounts: data, computing, privacy, and what data brought."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sklearn.datasets import load_breast_cancer

from tests.scenes.breast_cancer import HOSPITALS, MODEL, write_intent, write_network
from tests.scenes.waiting import wait_until

from .conftest import Network, running

pytestmark = pytest.mark.processes

BUDGET_USD, POOL_USD = 100.0, 10.0
HOUR_USD = {"east": 3600.0, "north": 36.0, "west": 0.0}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Hospitals with prices: of data everywhere, and of computing at two."""
    folder: Path = tmp_path_factory.mktemp("priced")
    path = write_network(folder)
    plain = yaml.safe_load(path.read_text())
    for node in plain["nodes"]:
        for data in node.get("datasets", ()):
            data["price_usd_per_1k"] = 0.25
            node["compute"] = {"price_usd_per_hour": HOUR_USD[node["site"]]}
    path.write_text(yaml.safe_dump(plain))
    network = running(folder, path)
    yield network
    network.processes.stop()


def ranges() -> dict[str, list[float]]:
    """Of the columns, as anybody may know them: without records, nothing else says them."""
    data = load_breast_cancer()
    spans = zip(data.feature_names, data.data.min(axis=0), data.data.max(axis=0), strict=True)
    return {name.replace(" ", "_"): [float(low), float(high)] for name, low, high in spans}


def accounts(network: Network) -> dict[str, Any]:
    return {one["account"]: one for one in network.json("account", "list")["accounts"]}


def entries(network: Network, account: str) -> list[dict[str, Any]]:
    return [line["entry"] for line in network.json("account", "statement", account)["lines"]]


def test_a_job_is_in_the_accounts_with_its_privacy_and_what_data_brought(network: Network) -> None:
    intent = write_intent(
        network.folder,
        model={**MODEL, "config": {**MODEL["config"], "learning_rate": 0.02, "ranges": ranges()}},
        objectives=[{"name": "tumours", "topic": "oncology/breast", "at_least": 0.75}],
        budget={"duration_s": 3600, "cost_usd": BUDGET_USD},
        training={
            "algorithm": "fedavg",
            "epochs": 10,
            "contributions": "shapley",
            "credits_usd": POOL_USD,
            "privacy": {"epsilon": 50, "visits": 4},
        },
    )
    job = network.json("train", "-f", str(intent), "--watch")
    assert job["state"] == "reached"

    def divided() -> bool:
        held = accounts(network).get("network", {})
        sums = {held.get("earned_micro_usd"), held.get("paid_micro_usd")}
        return sums == {POOL_USD * 1e6}

    wait_until(divided)
    found, lines = accounts(network), entries(network, "acme")
    visits = [one for one in lines if one["kind"] == "visit"]
    works = [one for one in lines if one["kind"] in ("visit", "merge", "measurement")]
    by_kind = Counter[str]()  # The site that asks nothing may be the one that merges.
    for one in works:
        by_kind[one["kind"]] += _on(one, "owner/acme")
    paid = -by_kind.total()
    assert 0 < paid <= BUDGET_USD * 1e6
    assert abs(paid - 1e6 * job["cost_usd"]) <= len(works)
    merged = [*visits]  # Whoever comes too late for its round is paid as well.
    for made in job["route"]:
        site = f"site/{made['site']}"
        visit = next(one for one in merged if _is(one, site, made["work"], made["seconds"]))
        merged.remove(visit)
        hour_usd = HOUR_USD[made["site"]]
        price = 0.25 * made["work"] / 1000 + hour_usd * made["seconds"] / 3600
        assert _on(visit, site) == pytest.approx(1e6 * price, abs=1)
        assert visit["quantities"]["micro_epsilon"] == pytest.approx(
            1e6 * made["privacy"]["epsilon"], abs=1
        )
    spent = sum(visit["quantities"]["micro_epsilon"] for visit in visits)
    assert found["owner/acme"]["quantities"]["micro_epsilon"] == spent > 0

    credited = {
        site: sum(
            _on(one, f"site/{site}")
            for one in entries(network, f"site/{site}")
            if one["kind"] == "credits"
        )
        for site in HOSPITALS
    }
    assert sum(credited.values()) == POOL_USD * 1e6, "the model learned, so somebody's data brought"
    assert found["owner/acme"]["balance_micro_usd"] == -paid - POOL_USD * 1e6
    assert found["owner/acme"]["by_kind"] == {
        **{kind: amount for kind, amount in by_kind.items() if amount},
        "pool": -POOL_USD * 1e6,
    }
    for site, amount in credited.items():
        assert found[f"site/{site}"]["by_kind"].get("credits", 0) == amount
    assert sum(one["balance_micro_usd"] for one in found.values()) == 0
    best = max(credited, key=lambda site: credited[site])
    shown = network.daitn("account", "show", best).stdout
    assert "credits" in shown
    assert f"{credited[best] / 1e6:.6f}" in shown
    assert "epsilon" in shown
    assert "s of computing" in shown

    network.processes.kill("center")
    network.mend()
    assert network.json("account", "check")["problems"] == []
    assert accounts(network) == found


def _on(entry: dict[str, Any], account: str) -> int:
    return sum(one["micro_usd"] for one in entry["postings"] if one["account"] == account)


def _is(entry: dict[str, Any], site: str, examples: int, seconds: float) -> bool:
    """Whether it is about this visit. They are in the ledger as they were reported."""
    used = entry["quantities"]
    at = site in {one["account"] for one in entry["postings"]}
    return at and used["examples"] == examples and abs(used["compute_ms"] - 1000 * seconds) <= 1
