"""What of the comparison with Flower and NVIDIA FLARE can be tested without them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks.peers.programs.learners import Learner, Progress
from benchmarks.peers.report import table
from benchmarks.peers.run import Model, Outcome, models_in
from benchmarks.peers.tasks import TASKS, read_task, write_task
from safetensors.numpy import load_file

from daitn.learning.classifier import Classifier
from daitn.learning.recipe import LocalTask
from daitn.objects.merging import LocalRule

LAYERS = ("layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias")
RATE, BLUR = 1e-3, 0.3
"""Sites of DA-ITN leave weights with noise of this deviation, in learning rates."""


def records(path: Path) -> list[tuple[str, ...]]:
    with path.open(newline="") as file:
        return [tuple(row) for row in csv.reader(file)][1:]


@pytest.mark.parametrize("name", TASKS)
def test_sites_and_test_share_no_record_and_two_may_leave(name: str, tmp_path: Path) -> None:
    task = write_task(name, 5, tmp_path / "task")
    assert read_task(tmp_path / "task") == task
    held = {site: records(tmp_path / "task" / path) for site, path in task.sites.items()}
    every = [record for each in held.values() for record in each]
    tested = records(tmp_path / "task" / task.test)
    assert not set(tested) & set(every)
    assert len(set(every)) == len(every)
    left = [held[site] for site in held if site not in task.leaving]
    assert {record[-1] for each in left for record in each} == set(task.config["classes"])


def test_digits_are_skewed(tmp_path: Path) -> None:
    task = write_task("digits", 5, tmp_path / "task")
    for path in task.sites.values():
        assert len({record[-1] for record in records(tmp_path / "task" / path)}) == 4


@pytest.mark.parametrize("mu", [0.0, 0.5])
def test_a_peers_site_learns_what_a_site_of_ours_learns(mu: float, tmp_path: Path) -> None:
    folder = tmp_path / "task"
    task = write_task("digits", 5, folder, learning_rate=RATE)
    (out := tmp_path / "out").mkdir()
    learner, judge = Learner(folder, "site-1"), Learner(folder)
    ours = Classifier().adapting(LocalTask(rule=LocalRule(merged=True, mu=mu)))
    data, examples = folder / task.sites["site-1"], learner.examples(3.0)
    ours.train(folder / "fresh", task.config, data, examples, 11, out, lambda progress: None)
    theirs = learner.train(learner.fresh(), 3.0, 11, mu)
    made = load_file(out / "weights.safetensors")
    for name, mine, before in zip(LAYERS, theirs, learner.fresh(), strict=True):
        apart, moved = np.abs(made[name] - mine), np.abs(mine - before)
        assert apart.mean() < 2 * BLUR * RATE < moved.mean() / 10
    value = ours.evaluate(out, task.config, folder / task.test, "accuracy").value
    assert judge.accuracy(theirs) == pytest.approx(value, abs=0.02)


def test_progress_is_read_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    assert models_in(path) == []
    Progress(path).tell(1, 0.5, seen=5)
    ((at_s, value),) = models_in(path)
    with path.open("a") as file:
        file.write('{"round": 2, "at_')
    assert models_in(path) == [Model(at_s, value)]
    assert value == 0.5


def test_the_table_has_medians_of_each_system_on_each_network() -> None:
    one = Outcome(
        task="digits", network="even", system="Flower", setting="FedAvg", seed=1, reached=True,
        value=0.94, seconds=10.0, sent_bytes=2_000_000, processor_s=4.0, startup_s=3.0,
        startup_processor_s=2.0, memory_bytes=500_000_000, models=3,
    )  # fmt: skip
    missed = replace(one, seed=2, reached=False, value=0.9, seconds=120.0)
    alone = replace(one, network="slow", sent_bytes=None)
    lines = table([one, missed, replace(one, seed=3, seconds=30.0), alone]).splitlines()
    even, slow = lines.index("digits, even:"), lines.index("digits, slow:")
    assert even < slow
    assert "| Flower | FedAvg | 2 of 3 | 0.940 | 30.0 | 4.0 | 2.00 | 500 | 3.0 | 2.0 | 3 |" in lines
    assert "| Flower | FedAvg | 1 of 1 | 0.940 | 10.0 | 4.0 |  | 500 | 3.0 | 2.0 | 3 |" in lines
