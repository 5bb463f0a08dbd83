"""What differential privacy costs in accuracy, by epsilon: `python -m benchmarks.privacy`.

Three sites hold a quarter of a public table each, and the last quarter is the test set. A
classifier visits each site once, for ten epochs, with the noise, the sampling and the clipping that
a site's node would choose. The ranges of the columns of breast cancer (569 records, 30 columns) are
in its published description; digits (1,797 records, 64 columns) have 16 shades.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits

from daitn.control.privacy_accounting import least_noise, schedule
from daitn.learning.classifier import Classifier
from daitn.learning.recipe import DpSgd

DELTA = 1e-5
EPSILONS = (1.0, 3.0, 8.0, None)
SEEDS = range(5)
SITES = 3
EPOCHS = 10


def main() -> None:
    rows = []
    for name, load in (("breast cancer", load_breast_cancer), ("digits", load_digits)):
        data = load()
        cells = []
        for epsilon in EPSILONS:
            values = [accuracy(data.data, data.target, epsilon, seed) for seed in SEEDS]
            cells.append(f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    heads = [f"epsilon {each:g}" if each else "none" for each in EPSILONS]
    sys.stdout.write(f"| data | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}\n")
    sys.stdout.write("\n".join(rows) + "\n")


def accuracy(points: NDArray[Any], labels: NDArray[Any], epsilon: float | None, seed: int) -> float:
    """On the test set, after a visit to each site."""
    columns = [f"c{number}" for number in range(points.shape[1])]
    ranges = {
        column: (float(low), float(high) if high > low else float(low) + 1.0)
        for column, low, high in zip(columns, points.min(0), points.max(0), strict=True)
    }
    config: dict[str, object] = {
        "classes": [str(label) for label in np.unique(labels)],
        "learning_rate": 0.01,
        "ranges": ranges,
    }
    order = np.random.default_rng(seed).permutation(len(labels))
    test, *sites = np.array_split(order, SITES + 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "fresh"
        model.mkdir()
        Classifier().initialise(config, seed, model)
        for number, rows in enumerate(sites):
            data, out = folder / f"{number}.csv", folder / str(number)
            _write(data, columns, points[rows], labels[rows])
            out.mkdir()
            recipe, examples = Classifier(), EPOCHS * len(rows)
            if epsilon is not None:
                secret = f"{seed} {number}".encode()  # A site's is nobody else's.
                recipe = recipe.privately(_terms(epsilon, len(rows), examples, secret))
            recipe.train(model, config, data, examples, seed, out, lambda _: None)
            model = out
        _write(folder / "test.csv", columns, points[test], labels[test])
        return Classifier().evaluate(model, config, folder / "test.csv", "accuracy").value


def _terms(epsilon: float, records: int, examples: int, secret: bytes) -> DpSgd:
    rate, steps = schedule(records, examples)
    noise = least_noise(rate, steps, epsilon, DELTA)
    return DpSgd(secret=secret, rate=rate, steps=steps, noise=noise, clip=1.0, lot=rate * records)


def _write(path: Path, columns: list[str], points: NDArray[Any], labels: NDArray[Any]) -> None:
    lines = [
        ",".join([str(label), *(repr(float(value)) for value in row)])
        for label, row in zip(labels, points, strict=True)
    ]
    path.write_text("\n".join([",".join(["label", *columns]), *lines]) + "\n")


if __name__ == "__main__":
    main()
