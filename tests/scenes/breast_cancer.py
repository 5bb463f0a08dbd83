"""A small real network: scikit-learn's breast-cancer data over three hospitals and a verifier."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from sklearn.datasets import load_breast_cancer

from tests.scenes.ports import free_port

__all__ = ["HOSPITALS", "INTENT", "MODEL", "write_intent", "write_network"]

HOSPITALS = ("east", "north", "west")
MODEL: dict[str, Any] = {
    "recipe": "classifier",
    "seed": 1,
    "config": {"classes": ["benign", "malignant"], "hidden": [32]},
}
INTENT: dict[str, Any] = {
    "name": "tumour",
    "owner": "acme",
    "model": MODEL,
    "objectives": [{"name": "tumours", "topic": "oncology/breast", "at_least": 0.93}],
    "data": {"topics": ["oncology"]},
    "budget": {"duration_s": 3600},
}


def write_network(
    folder: Path,
    *,
    verifiers: tuple[str, ...] = ("mpvu",),
    save_every_s: float = 30.0,
    hour_usd: float = 0.0,
) -> Path:
    """Write data, node entries and the network file; returns the file. `hour_usd`: the price of an
    hour of training."""
    _write_data(folder)
    endpoint = f"tcp/127.0.0.1:{free_port()}"
    network = {
        "center": {"listen": [endpoint], "state": "state/center"},
        "defaults": {
            "center": [endpoint],
            "jurisdiction": "US",
            "threads": 1,
            "save_every_s": save_every_s,
        },
        "nodes": [
            *(_hospital(name, hour_usd) for name in HOSPITALS),
            *(_verifier(name) for name in verifiers),
        ],
    }
    path = folder / "network.yaml"
    path.write_text(yaml.safe_dump(network))
    return path


def write_intent(folder: Path, **changes: Any) -> Path:
    """Write the intent, with changes, under its name."""
    intent = {**INTENT, **changes}
    path = folder / f"{intent['name']}.yaml"
    path.write_text(yaml.safe_dump(intent))
    return path


def _hospital(name: str, hour_usd: float) -> dict[str, Any]:
    return {
        "site": name,
        "owner": name,
        "roles": ["data", "compute"],
        "state": f"state/{name}",
        "compute": {"price_usd_per_hour": hour_usd},
        "datasets": [
            {
                "name": "biopsies",
                "path": f"{name}.csv",
                "data_schema": "table/1",
                "modality": "table",
                "topics": ["oncology/breast"],
                "policy": {"recipes": ["classifier"], "start_models": name == "west"},
            }
        ],
    }


def _verifier(name: str) -> dict[str, Any]:
    test = {"topic": "oncology/breast", "path": "test.csv", "test_schema": "table/1", "chance": 0.5}
    return {
        "site": name,
        "owner": name,
        "roles": ["verifier"],
        "state": f"state/{name}",
        "tests": [test],
    }


def _write_data(folder: Path) -> None:
    data = load_breast_cancer()
    names = [str(name).replace(" ", "_") for name in data.feature_names]
    order = np.random.default_rng(0).permutation(len(data.target))
    held_out, rest = order[:150], order[150:]
    shares = {"test": held_out}
    shares |= dict(zip(HOSPITALS, np.array_split(rest, len(HOSPITALS)), strict=True))
    for name, rows in shares.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*names, "label"])
            for row in rows:
                label = "malignant" if data.target[row] == 0 else "benign"
                writer.writerow([*data.data[row], label])
