"""One model over tables as unlike as their owners: labels, spellings, marks, ids, empty columns."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from .conftest import build

pytestmark = pytest.mark.processes

SIZE = "größe_é"
"""About 1000, and what decides the class."""


def table(seed: int, rows: int = 240) -> list[tuple[str, str, str, str]]:
    """Class, size, noise and a patient's name."""
    rng = np.random.default_rng(seed)
    ill = rng.integers(0, 2, rows)
    size = 1000.0 + 20.0 * ill + rng.normal(0, 4, rows)
    noise = rng.normal(0, 1, rows)
    return [
        (("gesund", "kränk")[ill[n]], f"{size[n]:.3f}", f"{noise[n]:.3f}", f"Smith-{n}")
        for n in range(rows)
    ]


def write(path: Path, text: str) -> None:
    path.write_bytes(text.encode())


def node(site: str, role: str, **entry: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {"site": site, "owner": site, "state": f"state/{site}"}
    if role == "verifier":
        test = {"topic": "tumours", "path": f"{site}.csv", "test_schema": "table/1", "chance": 0.5}
        return {**plain, "roles": ["verifier"], "tests": [{**test, **entry}]}
    dataset = {
        "name": "patients",
        "path": f"{site}.csv",
        "data_schema": "table/1",
        "modality": "table",
        "topics": ["tumours"],
        "policy": {"recipes": ["classifier"]},
    }
    return {**plain, "roles": ["data", "compute"], "datasets": [{**dataset, **entry}]}


def test_a_model_learns_from_tables_of_unlike_owners(tmp_path: Path) -> None:
    marked = "".join(f"{c},{s},{x},{p}\r\n" for c, s, x, p in table(1))
    write(tmp_path / "north.csv", f"\ufeffdiagnosis,{SIZE},noise,name\r\n\r\n{marked}")
    apart = unicodedata.normalize("NFD", "".join(f"{x},{s}, {c} \n" for c, s, x, _ in table(2)))
    write(tmp_path / "south.csv", f"noise,{unicodedata.normalize('NFD', SIZE)} ,Befund\n{apart}")
    empty = "".join(f"{c},,{x}\n" for c, _, x, _ in table(3))
    write(tmp_path / "west.csv", f"label,{SIZE},noise\n{empty}")
    exam = "".join(f"{s},{p},{x},{c}\n" for c, s, x, p in table(9))
    write(tmp_path / "exam.csv", f"{SIZE},name,noise,result\n{exam}")
    network = build(
        tmp_path,
        [
            node("north", "data", label="diagnosis", ignore=["name"]),
            node("south", "data", label="Befund"),
            node("west", "data"),
            node("exam", "verifier", label="result", columns=["noise", SIZE]),
        ],
    )
    try:
        stops = ["north", "west", "south", "west"]
        intent = {
            "name": "tumours",
            "owner": "acme",
            "model": {
                "recipe": "classifier",
                "config": {
                    "classes": ["gesund", unicodedata.normalize("NFD", "kränk")],
                    "learning_rate": 0.01,
                },
            },
            "objectives": [{"name": "all", "topic": "tumours", "at_least": 0.95}],
            "data": {"topics": ["tumours"]},
            "route": [{"site": site, "examples": 600} for site in stops],
        }
        (tmp_path / "intent.yaml").write_text(yaml.safe_dump(intent))
        ended = network.daitn("train", "-f", str(tmp_path / "intent.yaml"), "--watch")
        assert ended.returncode == 0, ended.stderr + ended.stdout
        (dataset,) = network.json("describe", "node", "south")["descriptor"]["datasets"]
        assert set(dataset["labels"]) == {"gesund", "kränk"}
        log = (tmp_path / "logs" / "west.log").read_text()
        assert f"empty throughout, so that models learn nothing from it here: {SIZE}" in log
        assert "Smith" not in log
        out = tmp_path / "model"
        assert network.daitn("model", "export", "tumours-1", "-o", str(out)).returncode == 0
        columns = next(out.rglob("features.json")).read_text()
        assert "name" not in columns
        assert SIZE in columns
    finally:
        network.processes.stop()
