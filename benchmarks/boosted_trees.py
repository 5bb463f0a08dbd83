"""Compare boosted trees with the classifier: breast cancer at five hospitals with unlike patients.

    python -m benchmarks.boosted_trees

There is no network: real recipes see the data under owners' usual terms. A pass is one epoch over
every site's records, for all. `in a row` visits the sites one after the other, `rounds` trains at
all sites at once and merges, and `together` trains on all records in one place, which no owner
allows. Classes are divided among the sites by a Dirichlet distribution (Hsu et al. 2019), whose
parameter is given: 100 is even, and with 0.1 most sites have hardly more than one class. Accuracy
is a mean over `--splits`.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer

from daitn.learning.boosted_trees import BoostedTrees
from daitn.learning.classifier import Classifier
from daitn.learning.recipe import MergeTask
from daitn.objects.merging import MergeRule

SITES = 5
UNLIKE = (100.0, 1.0, 0.3, 0.1)
PASSES = (1, 3, 8)
CLASSES = ["malignant", "benign"]
RECIPES: dict[str, tuple[Any, dict[str, Any]]] = {
    "boosted-trees": (BoostedTrees(), {"classes": CLASSES}),
    "classifier": (Classifier(), {"classes": CLASSES, "learning_rate": 3e-3}),
}
WAYS = ("together", "in a row", "rounds")


def split(folder: Path, unlike: float, seed: int) -> tuple[list[Path], Path, Path]:
    """The sites that have enough records of a class, all of their records, and the test."""
    loaded, rng = load_breast_cancer(), np.random.default_rng(seed)
    order = rng.permutation(len(loaded.target))
    test, rest = order[:142], order[142:]
    home = np.zeros(len(rest), np.int64)
    for label in (0, 1):
        mine = loaded.target[rest] == label
        home[mine] = rng.choice(SITES, mine.sum(), p=rng.dirichlet([unlike] * SITES))

    def write(name: str, rows: NDArray[np.int64]) -> Path:
        path = folder / f"{name}.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*loaded.feature_names, "label"])
            writer.writerows([*loaded.data[row], CLASSES[loaded.target[row]]] for row in rows)
        return path

    counts = [np.bincount(loaded.target[rest[home == site]], minlength=2) for site in range(SITES)]
    sites = [write(f"{n}", rest[home == n]) for n, count in enumerate(counts) if count.max() >= 10]
    return sites, write("all", rest), write("test", test)


class Run:
    """One recipe on one split."""

    def __init__(self, name: str, folder: Path) -> None:
        self.recipe, self.config = RECIPES[name]
        self._folder = folder
        self._number = 0

    def new(self) -> Path:
        self._number += 1
        out = self._folder / str(self._number)
        out.mkdir()
        return out

    def fresh(self) -> Path:
        out = self.new()
        self.recipe.initialise(self.config, 1, out)
        return out

    def visit(self, model: Path, data: Path) -> Path:
        out, examples = self.new(), self.recipe.inspect(data).samples
        self.recipe.train(
            model, self.config, data, examples, self._number, out, lambda progress: None
        )
        return out

    def merge(self, base: Path, models: list[Path], sites: list[Path]) -> Path:
        out = self.new()
        task = MergeTask(
            base=str(base),
            models=tuple(map(str, models)),
            shares=tuple(float(self.recipe.inspect(site).samples) for site in sites),
            rule=MergeRule(),
            seed=1,
        )
        self.recipe.merge(task, self.config, out, out / "moments")
        return out

    def models(self, way: str, sites: list[Path], whole: Path) -> Iterator[Path]:
        """After each pass."""
        model = self.fresh()
        while True:
            if way == "rounds":
                model = self.merge(model, [self.visit(model, site) for site in sites], sites)
            else:
                for data in [whole] if way == "together" else sites:
                    model = self.visit(model, data)
            yield model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--splits", type=int, default=5, help="number of splits")
    options = parser.parse_args()
    torch.set_num_threads(1)
    after = ", ".join(f"{passes}" for passes in PASSES)
    print(f"| recipe | way | {' | '.join(f'{a:g}: after {after} passes' for a in UNLIKE)} ", end="")
    print("| kB | s |\n|---|---|" + "---|" * (len(UNLIKE) + 2))
    for name in RECIPES:
        for way in WAYS:
            cells, sizes, began = [], [], time.process_time()
            for unlike in UNLIKE:
                found: dict[int, list[float]] = {passes: [] for passes in PASSES}
                for seed in range(options.splits):
                    folder = Path(tempfile.mkdtemp())
                    sites, whole, test = split(folder, unlike, seed)
                    run = Run(name, folder)
                    made = run.models(way, sites, whole)
                    for passes, model in zip(range(1, max(PASSES) + 1), made, strict=False):
                        if passes in found:
                            value = run.recipe.evaluate(model, run.config, test, "accuracy").value
                            found[passes].append(value)
                    sizes.append(sum(part.stat().st_size for part in model.iterdir()))
                    shutil.rmtree(folder)
                cells.append(", ".join(f"{fmean(values):.3f}" for values in found.values()))
            seconds = (time.process_time() - began) / len(UNLIKE) / options.splits
            row = (name, way, *cells, f"{fmean(sizes) / 1e3:.0f}", f"{seconds:.1f}")
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
