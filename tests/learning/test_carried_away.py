"""What a model owner who makes a model for it reads of single records in weights.

The attack: hidden units are thresholds along one direction, so what two neighbours learned differs
by the records between them; outputs and learning rate are so small that a visit is linear.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from daitn.identity.keys import SigningKey
from daitn.learning import bounded, weight_noise
from daitn.learning.classifier import Classifier
from daitn.learning.classifier.scale import scale_of
from daitn.learning.recipe import Config
from daitn.node.disclosure import Disclosure
from daitn.objects.identifiers import Digest, JobId, VisitId
from daitn.objects.messages import VisitWork
from daitn.objects.models import ModelRef

RECORDS, UNITS = 60, 1024
COLUMNS = ["number", "age", "marker", "pressure"]
BY_CHANCE = 6
"""Of so many candidates some are near a record."""


def table(path: Path) -> NDArray[np.float64]:
    rng = random.Random(3)
    rows: list[list[object]] = [
        [rng.randrange(10**5, 10**6), rng.gauss(60, 12), rng.gauss(5, 2), rng.gauss(120, 15),
         ("ill", "well")[n % 2]]
        for n in range(RECORDS)
    ]  # fmt: skip
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([[*COLUMNS, "label"], *rows])
    return np.array([row[:-1] for row in rows], np.float64)


def config(rate: float) -> Config:
    return {
        "classes": ["ill", "well"], "hidden": [UNITS], "learning_rate": rate, "batch": 256,
        "proximal": 0.0, "features": len(COLUMNS),
    }  # fmt: skip


def thresholds(folder: Path, scale: float) -> None:
    direction = torch.randn(len(COLUMNS), generator=torch.Generator().manual_seed(5)) * scale
    weights = {
        "layers.0.weight": direction.repeat(UNITS, 1),
        "layers.0.bias": -torch.linspace(-8, 8, UNITS) * direction.norm() / 2**0.5,
        "layers.1.weight": torch.tensor([[1e-9], [0.0]]).repeat(1, UNITS),
        "layers.1.bias": torch.zeros(2),
    }
    save_file(weights, folder / "weights.safetensors")
    (folder / "features.json").write_text(json.dumps({"seed": 1, "columns": COLUMNS}))


def rebuilt(folder: Path, rate: float, scale: float | None) -> int:
    """How many records the weights show to a twentieth of a deviation; no scale: a fresh model."""
    start, out = folder / "start", folder / "out"
    start.mkdir(parents=True)
    out.mkdir()
    records = table(folder / "data.csv")
    recipe = Classifier()
    if scale is None:
        recipe.initialise(config(rate), 1, start)
    else:
        thresholds(start, scale)
    recipe.train(start, config(rate), folder / "data.csv", RECORDS, 12345, out, lambda _: None)
    before, after = (load_file(one / "weights.safetensors") for one in (start, out))
    learned = {name: before[name].double() - after[name].double() for name in before}
    mean, deviation = after["standard.mean"].double(), after["standard.var"].double().sqrt()
    found: set[int] = set()
    for apart in (1, 4):
        weight, bias = (
            learned[name][:-apart] - learned[name][apart:]
            for name in ("layers.0.weight", "layers.0.bias")
        )
        guesses = (weight / bias[:, None] * deviation + mean).numpy()
        near = np.abs(guesses[:, None] - records) / records.std(axis=0) < 0.05
        found |= set(np.flatnonzero(near.all(axis=2).any(axis=0)).tolist())
    return len(found)


TRIED = [(1e-11, 1e-9), (1e-11, 1e-8), (1e-9, 1e-9), (1e-9, 1e-8), (0.1, 1e-3), (0.1, 1.0)]
"""Learning rates and scales of the weights."""


def test_a_model_made_of_thresholds_carries_no_records_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def most(name: str) -> int:
        each = enumerate(TRIED)
        return max(rebuilt(tmp_path / f"{name}-{n}", rate, scale) for n, (rate, scale) in each)

    assert most("now") <= BY_CHANCE
    monkeypatch.setattr(weight_noise, "_BLUR", 0.0)
    monkeypatch.setattr(weight_noise, "_ROUNDING", 0.0)
    assert most("without-noise") > RECORDS / 2, "many steps alone do not help"
    monkeypatch.setattr(bounded, "LEAST_STEPS", 1)
    assert most("in-one-step") > RECORDS / 2


@pytest.mark.parametrize("rate", [1e-9, 1e-3, 0.1])
def test_a_fresh_model_carries_no_records_away(rate: float, tmp_path: Path) -> None:
    assert rebuilt(tmp_path / "fresh", rate, None) <= BY_CHANCE


def singled_out(folder: Path, seed: int) -> bool:
    """Whether the weights of a fresh model tell a record that it learned from, among thousands of
    others, by which of them moved by their last bit."""
    start, out = folder / "start", folder / "out"
    start.mkdir(parents=True)
    out.mkdir()
    records, recipe = table(folder / "data.csv"), Classifier()
    settings = {**config(1.02 * 2.0**-26), "batch": 1}
    recipe.initialise(settings, 1, start)
    recipe.train(start, settings, folder / "data.csv", RECORDS, seed, out, lambda _: None)
    before, after = (load_file(one / "weights.safetensors") for one in (start, out))
    first, last = (before[f"layers.{n}.weight"].double().numpy() for n in (0, 1))
    moved = after["layers.0.weight"].double().numpy() - first
    moved = np.sign(moved) * (np.abs(first) >= 0.25) * (np.abs(first) < 0.5)
    bias = before["layers.0.bias"].double().numpy()
    mean, var = (after[f"standard.{name}"].double().numpy() for name in ("mean", "var"))
    others = np.random.default_rng(0).normal(0.0, 1.0, (4000, len(COLUMNS)))
    candidates = np.concatenate(((records - mean) / np.sqrt(var), others))

    def fits(record: NDArray[np.float64]) -> float:
        """How many weights it explains, with either label."""
        units = (first @ record + bias > 0) * (last[0] - last[1])
        return float(abs((np.sign(np.outer(units, record)) * moved).sum()))

    return int(np.argmax([fits(one) for one in candidates])) < RECORDS


def test_rounding_does_not_single_a_record_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first step is just over half of a weight's last bit, and later ones, as of Adam, under."""

    def told(name: str) -> int:
        return sum(singled_out(tmp_path / f"{name}-{seed}", seed) for seed in range(3))

    assert told("now") == 0
    monkeypatch.setattr(weight_noise, "_ROUNDING", 0.0)
    assert told("rounded") == 3


def last_record_told(folder: Path, seed_of: Callable[[int], int]) -> bool:
    """Whether three visits of so many examples, one more, and two more show the last record, by
    what the last step added to Adam's first moment. `seed_of`: of a visit of so many examples."""
    start = folder / "start"
    start.mkdir(parents=True)
    records, recipe, examples = table(folder / "data.csv"), Classifier(), 20
    settings = {**config(1e-3), "hidden": [4096], "batch": 1}
    recipe.initialise(settings, 1, start)
    models, scale = [], {}
    for n in (examples - 1, examples, examples + 1):
        (out := folder / f"out-{n}").mkdir()
        data = folder / "data.csv"
        recipe.train(start, settings, data, n, seed_of(n), out, lambda _: None)
        scale = {k: v.double().numpy() for k, v in load_file(out / "weights.safetensors").items()}
        bias = scale["layers.0.bias"][:, None]
        models.append(np.concatenate((scale["layers.0.weight"], bias), axis=1))
    before, added = models[1] - models[0], models[2] - models[1]
    added = added * (1 - 0.9 ** (examples + 1)) - 0.9 * before * (1 - 0.9**examples)
    others = np.random.default_rng(0).normal(0.0, 1.0, (5000, len(COLUMNS)))
    mean, deviation = scale["standard.mean"], np.sqrt(scale["standard.var"])
    candidates = np.concatenate(((records - mean) / deviation, others))

    def fits(record: NDArray[np.float64]) -> float:
        known = np.append(record, 1.0)
        units = (models[1] @ known > 0) * (
            scale["layers.1.weight"][0] - scale["layers.1.weight"][1]
        )
        expected = np.outer(units, known)
        return float(abs((expected * added).sum()) / np.linalg.norm(expected))

    return int(np.argmax([fits(one) for one in candidates])) < RECORDS


def test_visits_of_different_lengths_draw_differently(tmp_path: Path) -> None:
    """Where they drew alike, the difference of their weights showed the last record."""
    gate, key = Disclosure("data set records", 10), SigningKey.of(bytes(32))
    model = ModelRef(manifest=Digest("a" * 64), size_bytes=1, holders=())
    work = VisitWork(
        visit=VisitId("a-1.1"),
        job=JobId("a-1"),
        recipe="classifier",
        seed=5,
        config=dict(config(1e-3)),
        owner="acme",
        dataset="records",
        examples=20,
        model=model,
        previous=(),
    )

    def drawn(seed: int, examples: int) -> int:
        return gate.drawn(msgspec.structs.replace(work, seed=seed, examples=examples), key)

    assert last_record_told(tmp_path / "alike", lambda n: 5)
    told = [last_record_told(tmp_path / f"{seed}", partial(drawn, seed)) for seed in (1, 2)]
    assert not any(told)


def test_noise_takes_all_of_its_key() -> None:
    """A generator that took 32 bits of it was found by trying them on weights that learned
    nothing."""
    key = bytes(range(40))
    drawn = weight_noise.normal(key, 200_001)
    assert abs(float(drawn.mean())) < 0.01
    assert float(drawn.std()) == pytest.approx(1.0, abs=0.01)
    for at in range(len(key)):
        other = weight_noise.normal(key[:at] + b"\xff" + key[at + 1 :], 200_001)
        assert abs(float((drawn * other).mean())) < 0.01


def test_no_two_results_have_the_same_noise() -> None:
    def noise(value: float, seed: int) -> torch.Tensor:
        weights = [torch.full((50,), value)]
        weight_noise.blur(weights, 1.0, seed)
        return weights[0] - value

    assert torch.equal(noise(1.0, 7), noise(1.0, 7)), "a visit can be repeated"
    for other in (noise(1.0, 8), noise(2.0, 7)):
        assert float((noise(1.0, 7) - other).abs().max()) > 0.01


def test_the_scaling_of_columns_does_not_tell_a_record_that_was_added() -> None:
    """The exact means of two visits, times their counts, differed by the record."""
    rng = np.random.default_rng(4)
    changed = 0
    for _ in range(200):
        rows = rng.normal(60.0, 12.0, (201, 1)).astype(np.float32)
        before, after = scale_of(rows[:-1], 50), scale_of(rows, 50)
        read = float(201 * after.mean - 200 * before.mean)
        assert float(before.count) == float(after.count) == 50.0
        assert float(after.mean) == pytest.approx(float(rows.mean()), abs=4.0)
        if before.mean != after.mean or before.var != after.var:
            changed += 1
            assert abs(read - float(rows[-1, 0])) > 12.0
    assert changed <= 10
