"""What verifiers' probes find of models that memorise, and of models that do not.

    python -m benchmarks.exposure [--seeds N]

A site holds scikit-learn's breast-cancer data, in which every fifth record is a canary: a record
with the wrong label, which a model only predicts if it has memorised it (mislabelled canaries:
Aerni et al. 2024, "Evaluations of machine learning privacy defenses are misleading",
arXiv:2404.17399). The probes are these canaries, and as many that no site has. Training differs in
the number of epochs and in differential privacy; noise and sampling are what a node would choose.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer

from daitn.control.privacy_accounting import least_noise, schedule
from daitn.learning.boosted_trees import BoostedTrees
from daitn.learning.classifier import Classifier
from daitn.learning.recipe import DpSgd

__all__ = ["CLASSIFIER", "PRIVATE", "Probed", "probed_tumours"]

DELTA = 1e-5
TEST, CANARIES = 119, 75
"""Records of the test set; canaries that the site has, and that it does not have."""
CLASSES = ("malignant", "benign")


@dataclass(frozen=True)
class Probed:
    """A site's table, a test set and probes, as texts of CSV files."""

    site: str
    records: int
    test: str
    probes: str


def probed_tumours(seed: int) -> Probed:
    """Breast-cancer data with canaries."""
    points, labels = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    test, probes, rest = np.split(order, [TEST, TEST + 2 * CANARIES])
    wrong, member = 1 - labels[probes], np.arange(len(probes)) % 2
    own = probes[member == 1]
    rows, told = np.concatenate([rest, own]), np.concatenate([labels[rest], wrong[member == 1]])
    return Probed(
        site=_table(points[rows], told),
        records=len(rows),
        test=_table(points[test], labels[test]),
        probes=_table(points[probes], wrong, member),
    )


def _table(points: NDArray[Any], labels: NDArray[Any], member: NDArray[Any] | None = None) -> str:
    names = [str(name).replace(" ", "_") for name in load_breast_cancer().feature_names]
    lines = [",".join([*names, *(["member"] if member is not None else []), "label"])]
    for number, row in enumerate(points):
        told = [str(member[number])] if member is not None else []
        lines.append(",".join([*(repr(float(x)) for x in row), *told, CLASSES[labels[number]]]))
    return "\n".join(lines) + "\n"


def _ranges() -> dict[str, list[float]]:
    """Of the columns, as anybody may know them: private training may not look."""
    data = load_breast_cancer()
    spans = zip(data.feature_names, data.data.min(axis=0), data.data.max(axis=0), strict=True)
    return {str(name).replace(" ", "_"): [float(low), float(high)] for name, low, high in spans}


CLASSIFIER: dict[str, Any] = {"classes": list(CLASSES), "hidden": [128], "learning_rate": 0.01}
PRIVATE = {**CLASSIFIER, "ranges": _ranges()}
TREES: dict[str, Any] = {"classes": list(CLASSES)}


@dataclass(frozen=True)
class Training:
    """How a model is trained."""

    recipe: Classifier | BoostedTrees
    config: dict[str, Any]
    epochs: int
    epsilon: float | None = None

    @property
    def row(self) -> str:
        private = "none" if self.epsilon is None else f"{self.epsilon:g}"
        return f"| `{self.recipe.name}` | {self.epochs} | {private} |"


TRAININGS: Sequence[Training] = (
    *(Training(Classifier(), CLASSIFIER, epochs) for epochs in (1, 10, 40, 160)),
    *(Training(Classifier(), PRIVATE, 40, epsilon) for epsilon in (8.0, 2.0)),
    *(Training(BoostedTrees(), TREES, epochs) for epochs in (1, 4, 16)),
)


def measured(training: Training, seed: int) -> Iterator[float]:
    """Accuracy, `unexposed` and its standard error, and seconds of training."""
    data = probed_tumours(seed)
    recipe, config, examples = training.recipe, training.config, training.epochs * data.records
    if training.epsilon is not None:
        assert isinstance(recipe, Classifier)
        recipe = recipe.privately(_terms(training.epsilon, data.records, examples))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("site", "test", "probes"):
            (folder / f"{file}.csv").write_text(getattr(data, file))
        fresh, out = folder / "fresh", folder / "out"
        fresh.mkdir()
        out.mkdir()
        recipe.initialise(config, seed, fresh)
        began = time.process_time()
        recipe.train(fresh, config, folder / "site.csv", examples, seed, out, lambda _: None)
        seconds = time.process_time() - began
        yield recipe.evaluate(out, config, folder / "test.csv", "accuracy").value
        probe = recipe.evaluate(out, config, folder / "probes.csv", "unexposed")
        yield from (probe.value, probe.standard_error, seconds)


def _terms(epsilon: float, records: int, examples: int) -> DpSgd:
    rate, steps = schedule(records, examples)
    noise, secret = least_noise(rate, steps, epsilon, DELTA), secrets.token_bytes(32)
    return DpSgd(secret=secret, rate=rate, steps=steps, noise=noise, clip=1.0, lot=rate * records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=5, help="number of splits")
    seeds = range(parser.parse_args().seeds)
    torch.set_num_threads(1)
    heads = ("recipe", "epochs", "epsilon", "accuracy", "`unexposed`", "CPU seconds")
    sys.stdout.write(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}\n")
    for training in TRAININGS:
        runs = [tuple(measured(training, seed)) for seed in seeds]
        accuracy, unexposed, error, seconds = (fmean(one) for one in zip(*runs, strict=True))
        cells = f"{accuracy:.3f} | {unexposed:.3f} ± {error:.3f} | {seconds:.2f}"
        sys.stdout.write(f"{training.row} {cells} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
