"""A small network that trains and answers: two institutes, a verifier, facilities, a gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from daitn.learning.corpora.prepare import prepare
from tests.scenes.ports import free_port

__all__ = ["MODEL", "examining", "facility", "gateway", "write_clinic", "write_clinic_intent"]

MODEL: dict[str, Any] = {
    "recipe": "causal-lm",
    "seed": 3,
    "config": {
        "layers": 1,
        "width": 48,
        "heads": 2,
        "vocabulary": 500,
        "answer_tokens": 24,
        "question_tokens": 12,
        "learning_rate": 0.005,
    },
}
TOPICS = {"ninds": "medicine/neurology", "nhlbi": "medicine/cardiology", "ghr": "medicine/general"}


def write_clinic(folder: Path, *nodes: dict[str, Any], every_s: float = 3600.0) -> Path:
    """Write data and the network file with `nodes` beside the institutes; returns the file.

    The verifier examines deployed models every `every_s` seconds.
    """
    prepare(folder / "data", None)
    endpoint = f"tcp/127.0.0.1:{free_port()}"
    network = {
        "center": {"listen": [endpoint], "state": "state/center"},
        "defaults": {"center": [endpoint], "jurisdiction": "US", "threads": 1},
        "nodes": [*(_institute(site) for site in TOPICS), _verifier(every_s), *nodes],
    }
    path = folder / "network.yaml"
    path.write_text(yaml.safe_dump(network))
    return path


def facility(site: str, *upstreams: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A facility's entry. `changes` are of the entry, but for `facility`, which is of that part."""
    part = {"upstreams": list(upstreams), **changes.pop("facility", {})}
    return {
        "site": site,
        "owner": site,
        "roles": ["facility"],
        "state": f"state/{site}",
        "facility": part,
        **changes,
    }


def gateway(site: str, **changes: Any) -> dict[str, Any]:
    """A gateway's entry; `port` of its own, changes of its part."""
    part = {"listen": f"127.0.0.1:{free_port()}", **changes}
    return {
        "site": site,
        "owner": site,
        "roles": ["gateway"],
        "state": f"state/{site}",
        "gateway": part,
    }


def examining(exam: Path) -> dict[str, Any]:
    """A verifier's entry: it asks deployed models of medicine what is in `exam`, each second."""
    test = {"topic": "medicine", "path": str(exam), "test_schema": "multiple-choice/1"}
    return {
        "site": "mpvu",
        "owner": "board",
        "roles": ["verifier"],
        "state": "state/mpvu",
        "recipes": ["causal-lm"],
        "tests": [test],
        "asking": {"every_s": 1.0, "items": 24},
    }


def write_clinic_intent(folder: Path, **changes: Any) -> Path:
    """An intent that trains a tiny language model at one site, quickly."""
    intent = {
        "name": "doctor",
        "owner": "health-ai",
        "model": MODEL,
        "objectives": [{"name": "expert", "topic": "medicine/neurology", "at_least": 0.5}],
        "data": {"topics": ["medicine"]},
        "budget": {"duration_s": 3600},
        "route": [{"site": "ninds", "examples": 1200}],
        **changes,
    }
    path = folder / f"{intent['name']}.yaml"
    path.write_text(yaml.safe_dump(intent))
    return path


def _institute(site: str) -> dict[str, Any]:
    return {
        "site": site,
        "owner": site,
        "roles": ["data", "compute"],
        "state": f"state/{site}",
        "recipes": ["causal-lm"],
        "datasets": [
            {
                "name": "qa",
                "path": f"data/sites/{site}.jsonl",
                "data_schema": "qa-pairs/1",
                "topics": [TOPICS[site]],
                "policy": {"recipes": ["causal-lm"]},
            }
        ],
    }


def _verifier(every_s: float) -> dict[str, Any]:
    test = {
        "topic": "medicine/neurology",
        "path": "data/tests/expert.jsonl",
        "test_schema": "multiple-choice/1",
        "chance": 0.25,
    }
    return {
        "site": "mpvu",
        "owner": "mpvu",
        "roles": ["verifier"],
        "state": "state/mpvu",
        "recipes": ["causal-lm"],
        "tests": [test],
        "asking": {"every_s": every_s, "items": 24},
    }
