"""The demo's corpora as splits: the same sites, topics, configuration and tests as it writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.worlds.recorder import Case, SiteData, TestData
from benchmarks.worlds.routes import Effort
from benchmarks.worlds.tiny_llama import write_base
from daitn.cli.demo.scenario import write_scenario
from daitn.learning.causal_lm import CausalLm
from daitn.learning.corpora.clinic import clinic
from daitn.learning.corpora.medquad import SITES as INSTITUTES
from daitn.learning.corpora.medquad import read_medquad
from daitn.learning.corpora.prepare import prepare
from daitn.learning.corpora.records import QaPair, write_records
from daitn.learning.corpora.split import choices, is_test_topic
from daitn.objects.errors import NotFound

__all__ = ["TEXTS", "text_cases"]

TEXTS = ("clinic", "medquad", "tiny-llama")
_EFFORTS = {
    "clinic": Effort(160, most_visits=16, most_examples=1000, saturation_visits=6, rounds=3),
    "medquad": Effort(10, most_visits=5, most_examples=500, saturation_visits=4),
    "tiny-llama": Effort(30, most_visits=10, most_examples=1000, saturation_visits=6),
}
"""Random routes and limits: a visit takes seconds, at MedQuAD many."""
_REPETITIONS = {"clinic": (1, 2), "medquad": (), "tiny-llama": (1,)}
_REPEATED_ROUTES = 5
_CHANCE = 0.25
_OTHER_EXPERTS = ("nhlbi", "niddk", "cancergov")
_MOST_ITEMS = 240


def text_cases(family: str, data: Path) -> Iterator[Case]:
    """The split of a corpus, written under `data`, and its repetitions."""
    parquet = _medquad() if family == "medquad" else None
    prepared = prepare(data, parquet)
    pairs = read_medquad(parquet) if parquet else clinic()
    intent, sites, tests = _written(write_scenario(_made(data / "scenario"), data, prepared))
    if family != "medquad":  # where measuring them takes longer than a visit
        tests += _others(pairs, sites, data)
    config: dict[str, Any] = intent["model"].get("config", {})
    start, note = None, ""
    if family == "tiny-llama":
        start = data / "base"
        kept = [pair for own in pairs.values() for pair in own if not is_test_topic(pair.topic)]
        config, note = write_base(kept, config, start)
    for seed in (0, *_REPETITIONS[family]):
        yield Case(
            name=family if seed == 0 else f"{family}, seed {seed}",
            recipe=CausalLm(),
            config=config,
            sites=sites,
            tests=tests,
            expert=tests[1].topic,
            effort=_EFFORTS[family],
            seed=seed,
            repeats="" if seed == 0 else family,
            repeated_routes=_REPEATED_ROUTES,
            start=start,
            note=note,
        )


def _medquad() -> Path:
    path = Path(os.environ.get("DAITN_DATA", ".")) / "medquad.parquet"
    if not path.is_file():
        raise NotFound(
            f"no file {path}", field="DAITN_DATA", fix="set DAITN_DATA to the folder that has it"
        )
    return path


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _written(
    network: Path,
) -> tuple[dict[str, Any], tuple[SiteData, ...], tuple[TestData, ...]]:
    """What the demo wrote, read back: the owner's intent, sites in its order, broad and expert."""
    nodes = yaml.safe_load(network.read_text())["nodes"]
    intent = yaml.safe_load((network.parent / "healthcare.yaml").read_text())
    sites = tuple(
        SiteData(node["site"], Path(one["path"]), tuple(one["topics"]))
        for node in nodes
        for one in node.get("datasets", ())
    )
    paths = {one["topic"]: Path(one["path"]) for node in nodes for one in node.get("tests", ())}
    tests = tuple(
        TestData(aim["name"], aim["topic"], paths[aim["topic"]], _CHANCE)
        for aim in intent["objectives"]
    )
    return intent, sites, tests


def _others(
    pairs: dict[str, list[QaPair]], sites: tuple[SiteData, ...], data: Path
) -> tuple[TestData, ...]:
    """Tests of the other specialists, on diseases that appear in no training data."""
    topics = {site.name: site.topics[0] for site in sites}
    tests: list[TestData] = []
    for name in _OTHER_EXPERTS:
        assert name in INSTITUTES
        items = choices((pair for pair in pairs[name] if is_test_topic(pair.topic)), name)
        path = data / "tests" / f"{name}.jsonl"
        write_records(path, items[:: max(1, -(-len(items) // _MOST_ITEMS))])
        tests.append(TestData(f"expert-{name}", topics[name], path, _CHANCE))
    return tuple(tests)
