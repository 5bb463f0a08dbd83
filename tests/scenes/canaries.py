"""A small real network whose verifier probes models for canaries: records with wrong labels, half
of which a clinic has among its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["RECORDS", "SITE", "VERIFIER", "canary_nodes"]

SITE, VERIFIER = "clinic", "mpvu"
COLUMNS, ORDINARY, CANARIES, TEST = 40, 300, 100, 400
RECORDS = ORDINARY + CANARIES
"""Of the clinic's table."""
CLASSES = ("well", "ill")


def canary_nodes(folder: Path) -> list[dict[str, Any]]:
    """Write a clinic's table, a test set and probes; returns the entries of clinic and verifier."""
    rng = np.random.default_rng(0)
    rows, classes = _drawn(rng, ORDINARY + TEST + 2 * CANARIES)
    own, test, probes = np.split(np.arange(len(rows)), [ORDINARY, ORDINARY + TEST])
    member = np.arange(len(probes)) % 2
    classes[probes] = 1 - classes[probes]
    own = np.concatenate([own, probes[member == 1]])
    _write(folder / "clinic.csv", rows[own], classes[own])
    _write(folder / "test.csv", rows[test], classes[test])
    _write(folder / "probes.csv", rows[probes], classes[probes], member)
    table = {"data_schema": "table/1", "topics": ["patients"]}
    policy = {"recipes": ["classifier"], "start_models": True}
    dataset = {"name": "notes", "path": "clinic.csv", "modality": "table", **table}
    return [
        {**_node(SITE, "data", "compute"), "datasets": [{**dataset, "policy": policy}]},
        {
            **_node(VERIFIER, "verifier"),
            "tests": [_test("patients", "test.csv"), _test("patients/probes", "probes.csv")],
        },
    ]


def _node(site: str, *roles: str) -> dict[str, Any]:
    return {"site": site, "owner": site, "state": f"state/{site}", "roles": list(roles)}


def _test(topic: str, path: str) -> dict[str, Any]:
    return {"topic": topic, "path": path, "test_schema": "table/1", "chance": 0.5}


def _drawn(rng: np.random.Generator, count: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Records that a model tells apart by their features, and their true classes."""
    classes = rng.integers(0, 2, count)
    return rng.normal(0.0, 1.0, (count, COLUMNS)) + (classes[:, None] - 0.5), classes


def _write(
    path: Path,
    rows: NDArray[np.float64],
    classes: NDArray[np.int64],
    member: NDArray[np.int64] | None = None,
) -> None:
    names = [f"x{number}" for number in range(COLUMNS)]
    lines = [",".join([*names, *(["member"] if member is not None else []), "label"])]
    for number, row in enumerate(rows):
        told = [str(member[number])] if member is not None else []
        lines.append(",".join([*(f"{x:.4f}" for x in row), *told, CLASSES[classes[number]]]))
    path.write_text("\n".join(lines) + "\n")
