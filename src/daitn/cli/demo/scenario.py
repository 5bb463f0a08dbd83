"""The healthcare scenario: nine institutes, two verifiers, two facilities, a gateway, one owner.

It consists of files that the owner and the sites would write themselves; the planner sees nothing
else.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from daitn.cli.demo.base import PARTS, Base
from daitn.learning.corpora.split import Prepared
from daitn.tools.ports import free_port

__all__ = [
    "BASELINES",
    "BASE_PLACES",
    "FACILITIES",
    "GATEWAY",
    "PLACES",
    "TOPICS",
    "write_base_intent",
    "write_scenario",
]

_SPECIALITIES = {
    "ninds": "medicine/neurology",
    "nhlbi": "medicine/cardiology",
    "niddk": "medicine/metabolic",
    "cancergov": "medicine/oncology",
}
BASELINES = {
    "by size, 1 epoch": "by-size",
    "by size, 2 epochs": "by-size-twice",
    "ring, 500 examples": "ring",
    "general sites only": "general",
    "specialist only": "specialist",
}
"""Name of a baseline to the name of its intent file. All are pinned visit by visit: a planner that
has seen the planned route would know that the last two lead nowhere, and not begin."""
_Stop = tuple[str, int]
"""Site and examples."""
_RING_EXAMPLES = 500
"""Examples per visit of the ring."""

FACILITIES = ("mdf-east", "mdf-west")
GATEWAY = "gateway"
PLACES: tuple[tuple[str, tuple[str, ...], float], ...] = (
    ("healthcare-1", ("mdf-east", "mdf-west"), 0.004),
    ("general-1", ("mdf-east",), 0.001),
    ("specialist-1", ("mdf-west",), 0.001),
)
"""Where each job's model is deployed, and the price in USD of 1,000 tokens of its answers: the one
trained on everything costs more than those trained on a part."""
BASE_PLACES: tuple[tuple[str, tuple[str, ...], float], ...] = (
    ("base-1", ("mdf-east",), 0.001),
    ("healthcare-1", ("mdf-west",), 0.004),
)
"""Likewise with a base: the original, and the trained one."""
_ANY = {"broad": 0.001, "expert": 0.001}
"""Targets that every model reaches: it is only measured, not trained."""
TOPICS = {"broad": "medicine", "expert": "medicine/neurology"}
"""Topic of each test, which gives its objective its name."""
_TARGETS = {"broad": 0.80, "expert": 0.90}
_MOST_ASKED, _ASKED_EVERY_S = 240, 600.0
"""The first round must be meaningful, although findings are published in steps of several items;
and a large model needs pauses between rounds."""
_LEAST_FACILITY_BYTES = 1 << 31
_STORED_BYTES = 16 << 30


@dataclass(frozen=True)
class _Scale:
    """Settings that suit a corpus.

    The model, the time for training, and the examples after which a pinned route ends if its
    targets do not hold earlier.
    """

    config: dict[str, Any]
    within_s: float | None
    """More is no safer for small data: plans fill their time with examples. `None` means no
    limit."""
    general_examples: int = 0
    specialist_examples: int = 0
    obvious_examples: int = 0
    """A few rounds of all sites."""


_MEDQUAD = _Scale(
    config={},
    within_s=1200,
    general_examples=6000,
    specialist_examples=2500,
    obvious_examples=30_000,
)
_SMALL = _Scale(
    config={
        "layers": 2,
        "width": 96,
        "heads": 4,
        "vocabulary": 800,
        "answer_tokens": 32,
        "question_tokens": 16,
        "learning_rate": 0.003,
        "learning_rate_halves_after": 1000,
    },
    within_s=480,
    general_examples=3000,
    specialist_examples=1500,
    obvious_examples=15_000,
)


def write_scenario(folder: Path, data: Path, prepared: Prepared, base: Base | None = None) -> Path:
    """Write the network file and the intents to `folder`; returns the network file. With a base,
    the only intent is `base.yaml`, which has it measured."""
    network = folder / "network.yaml"
    _write(network, _network(data, prepared, base))
    if base is not None:
        write_base_intent(folder, "base", base, _ANY, within_s=None)
        return network
    scale = _MEDQUAD if prepared.source == "medquad" else _SMALL
    intent = _intent("healthcare", scale)
    _write(folder / "healthcare.yaml", intent)
    for name, turn, examples in _stated_routes(prepared, scale):
        _write(folder / f"{name}.yaml", _stated(intent, name, turn, examples))
    return network


def write_base_intent(
    folder: Path, name: str, base: Base, targets: Mapping[str, float], within_s: float | None
) -> None:
    """Write the intent `name`, which starts from a base."""
    intent = _intent(name, _Scale(config=base.config, within_s=within_s), targets)
    intent["model"]["start"] = PARTS
    _write(folder / f"{name}.yaml", intent)


def _stated_routes(prepared: Prepared, scale: _Scale) -> Iterator[tuple[str, list[_Stop], int]]:
    """Name of an intent, one round of its route, and the examples after which it ends."""
    by_size = sorted(prepared.sites.items(), key=lambda one: (-one[1], one[0]))
    yield "by-size", by_size, scale.obvious_examples
    yield "by-size-twice", [(site, 2 * count) for site, count in by_size], scale.obvious_examples
    ring = [(site, _RING_EXAMPLES) for site in sorted(prepared.sites)]
    yield "ring", ring, scale.obvious_examples
    general = [stop for stop in by_size if stop[0] in prepared.general]
    yield "general", general, scale.general_examples
    yield "specialist", [("ninds", prepared.sites["ninds"])], scale.specialist_examples


def _stated(intent: dict[str, Any], name: str, turn: list[_Stop], examples: int) -> dict[str, Any]:
    """The same intent with a pinned route, repeated up to this many examples.

    Its job ends as soon as the targets hold. It has no time limit: a route expected to take longer
    would be refused.
    """
    route: list[dict[str, Any]] = []
    for site, count in itertools.cycle(turn):
        if sum(visit["examples"] for visit in route) >= examples:
            break
        route.append({"site": site, "examples": count})
    return {**intent, "name": name, "budget": {}, "route": route}


def _network(data: Path, prepared: Prepared, base: Base | None) -> dict[str, Any]:
    endpoint = f"tls/127.0.0.1:{free_port()}"
    nodes = [_institute(site, data) for site in prepared.sites]
    nodes += [
        _verifier(f"mpvu-{test}", topic, data / "tests" / f"{test}.jsonl")
        for test, topic in TOPICS.items()
    ]
    nodes += [_facility(site) for site in FACILITIES]
    nodes.append(_gateway(f"127.0.0.1:{free_port()}"))
    network: dict[str, Any] = {
        "center": {"listen": [endpoint], "state": "state/center"},
        "defaults": {"center": [endpoint], "jurisdiction": "US", "recipes": ["causal-lm"]},
        "nodes": nodes,
    }
    if base is not None:
        _suit(network, base)
    return network


def _suit(network: dict[str, Any], base: Base) -> None:
    """Let the sites accept a model of this size supplied by its owner."""
    network["center"]["stored_bytes"] = max(_STORED_BYTES, 4 * base.size_bytes)
    network["defaults"]["threads"] = base.threads
    for node in network["nodes"]:
        for dataset in node.get("datasets", ()):
            dataset["policy"]["start_models"] = True
        if "tests" in node:
            items = min(_MOST_ASKED, base.items)
            node["asking"] = {"items": items, "every_s": _ASKED_EVERY_S}
        if "facility" in node:
            node["threads"] = max(1, base.threads // len(FACILITIES))
            node["facility"]["memory_bytes"] = max(_LEAST_FACILITY_BYTES, 4 * base.size_bytes)


def _institute(site: str, data: Path) -> dict[str, Any]:
    return {
        "site": site,
        "owner": site,
        "roles": ["data", "compute"],
        "state": f"state/{site}",
        "datasets": [
            {
                "name": "qa",
                "path": str(data / "sites" / f"{site}.jsonl"),
                "data_schema": "qa-pairs/1",
                "topics": [_SPECIALITIES.get(site, "medicine/general")],
                "licence": "CC-BY-4.0",
                "policy": {"recipes": ["causal-lm"]},
            }
        ],
    }


def _verifier(site: str, topic: str, path: Path) -> dict[str, Any]:
    test = {"topic": topic, "path": str(path), "test_schema": "multiple-choice/1", "chance": 0.25}
    return {
        "site": site,
        "owner": site,
        "roles": ["verifier"],
        "state": f"state/{site}",
        "tests": [test],
    }


def _facility(site: str) -> dict[str, Any]:
    return {
        "site": site,
        "owner": site,
        "roles": ["facility"],
        "state": f"state/{site}",
        "threads": 1,
        "facility": {"slots": 4},
    }


def _gateway(listen: str) -> dict[str, Any]:
    return {
        "site": GATEWAY,
        "owner": "city",
        "roles": ["gateway"],
        "state": f"state/{GATEWAY}",
        "gateway": {"listen": listen},
    }


def _intent(
    name: str, scale: _Scale, targets: Mapping[str, float] = MappingProxyType(_TARGETS)
) -> dict[str, Any]:
    return {
        "name": name,
        "owner": "health-ai",
        "model": {"recipe": "causal-lm", "seed": 7, "config": scale.config},
        "objectives": [
            {
                "name": test,
                "metric": "accuracy",
                "topic": TOPICS[test],
                "at_least": targets[test],
            }
            for test in TOPICS
        ],
        "data": {"topics": ["medicine"]},
        "requirements": [{"quantity": "jurisdiction", "one_of": ["US"]}],
        "budget": {} if scale.within_s is None else {"duration_s": scale.within_s},
    }


def _write(path: Path, plain: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(plain, sort_keys=False))
