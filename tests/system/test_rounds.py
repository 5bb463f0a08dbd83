"""Rounds of real processes, of which one is slow and one dies as it merges for its group."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.scenes.breast_cancer import MODEL, write_network
from tests.scenes.held_training import HeldTraining

from .conftest import Network, running
from .test_dynamics import job_of, submit, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.slow]

IN_GROUPS = """
import asyncio, os, pathlib, sys

if "daitn.cli.app" in sys.orig_argv:
    from daitn.control.route import trees
    from daitn.learning.trainer import Trainer

    trees._WORTH = 1e9
    trees._by_links = lambda sites, takes_s: [
        part for part in (sorted(sites)[:2], sorted(sites)[2:]) if part
    ]
    merge, armed = Trainer.merge, pathlib.Path(__file__).with_name("armed")

    async def merge_or_hang(self, *arguments, **options):
        try:
            armed.unlink()
        except FileNotFoundError:
            return await merge(self, *arguments, **options)
        await asyncio.sleep(3600.0)

    Trainer.merge = merge_or_hang
"""
"""On one machine all links are alike. Here the first two sites are a group nevertheless, and a
merge hangs as soon as there is a file `armed`."""
ROUNDS: dict[str, Any] = {"algorithm": "fedavg", "epochs": 3}


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> HeldTraining:
    return HeldTraining(tmp_path_factory.mktemp("held") / "hook", also=IN_GROUPS)


@pytest.fixture(scope="module")
def grouped(held: HeldTraining, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("grouped")
    with held.taken_over():
        path = write_network(folder)
        plain = yaml.safe_load(path.read_text())
        plain["defaults"]["stall_s"] = 600.0
        path.write_text(yaml.safe_dump(plain))
        network = running(folder, path)
    yield network
    network.processes.stop()


def sites_of(job: Any, number: int) -> set[str]:
    return {visit["site"] for visit in job["route"] if visit["round"] == number}


def without(job: Any, site: str) -> list[int]:
    """Rounds in which a site did not take part."""
    numbers = sorted({visit["round"] for visit in job["route"]})
    return [number for number in numbers if site not in sites_of(job, number)]


def test_a_round_goes_on_without_a_slow_site_whose_model_is_merged_later(
    grouped: Network, held: HeldTraining, tmp_path: Path
) -> None:
    with held.at("east"):
        submit(grouped, tmp_path, name="slow", training=ROUNDS, budget={"examples": 10**6})
        went_on = wait_for(grouped, "slow", lambda job: bool(without(job, "east")))
    number = without(went_on, "east")[0]
    assert sites_of(went_on, number) == {"north", "west"}
    later = wait_for(
        grouped,
        "slow",
        lambda job: any(v["site"] == "east" and v["round"] > number for v in job["route"]),
    )
    joined = next(
        visit["round"]
        for visit in later["route"]
        if visit["site"] == "east" and visit["round"] > number
    )
    assert len(sites_of(later, joined)) >= 2
    grouped.daitn("cancel", "slow-1")
    assert job_of(grouped, "slow")["working"] == []


def test_the_next_site_merges_when_the_aggregator_of_a_group_is_killed(
    grouped: Network, held: HeldTraining, tmp_path: Path
) -> None:
    armed = held.folder / "armed"
    armed.touch()
    # From another seed than any job here: else others may have its models, which are the same.
    fresh = {**MODEL, "seed": 1000}
    submit(
        grouped, tmp_path, name="killed", model=fresh, training=ROUNDS, budget={"examples": 10**6}
    )
    merging = wait_for(
        grouped, "killed", lambda job: job["state"] == "merging" and not armed.exists()
    )
    victim = merging["detail"].rsplit(" ", 1)[1]
    assert victim in merging["working"]
    grouped.processes.kill(victim)
    went_on = wait_for(grouped, "killed", lambda job: bool(sites_of(job, 1)))
    assert victim not in sites_of(went_on, 1), "its own model died with it"
    grouped.daitn("cancel", "killed-1")
    grouped.mend()
