"""Ask exported boosted trees about the records of a CSV file.

    python predict.py records.csv

Needs numpy and safetensors. `config.json`, beside it, describes the model. Prints, for each record,
the most likely class and its probability. In a program:

    from predict import Model
    Model("folder").probabilities([{"column": 1.5}])
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file


class Model:
    """The trees in a folder."""

    def __init__(self, folder: str | Path) -> None:
        self.config = json.loads((Path(folder) / "config.json").read_text())
        self._trees = load_file(Path(folder) / self.config["weights"])

    def probabilities(
        self, records: Iterable[Mapping[str, float | None]]
    ) -> list[dict[str, float]]:
        """The probability of each class for each record; null, or no number at all, is a missing
        one."""
        columns, classes = self.config["columns"], self.config["classes"]
        read = [[_number(record.get(column)) for column in columns] for record in records]
        scores = self._scores(np.array(read, np.float32).reshape(-1, len(columns)))
        likely = np.exp(scores - scores.max(axis=1, keepdims=True))
        likely /= likely.sum(axis=1, keepdims=True)
        return [dict(zip(classes, map(float, row), strict=True)) for row in likely]

    def _scores(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Each class's; below split k of a tree are 2 k + 1 and 2 k + 2, and leaves come last."""
        scores = np.zeros((len(values), len(self.config["classes"])), np.float32)
        rows = np.arange(len(values))
        columns, thresholds, missing, leaves, groups = (
            self._trees[f"trees.{name}"]
            for name in ("column", "threshold", "missing", "leaf", "group")
        )
        for tree, group in enumerate(groups):
            at = np.zeros(len(values), np.int64)
            for _ in range(self.config["depth"]):
                value = values[rows, columns[tree, at]]
                left = np.where(
                    np.isnan(value), missing[tree, at] == 1, value < thresholds[tree, at]
                )
                at = 2 * at + np.where(left | (columns[tree, at] < 0), 1, 2)
            # With two classes, the trees score the second.
            scores[:, 1 if scores.shape[1] == 2 else group] += leaves[tree, at - columns.shape[1]]
        return scores


def _number(value: float | str | None) -> float:
    return math.nan if value is None or value == "" else float(value)


def main() -> None:
    """Print the class of every record of the file that the command names."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    with open(sys.argv[1], newline="", encoding="utf-8-sig") as file:
        records = list(csv.DictReader(file))
    model = Model(Path(__file__).parent)
    known = [
        {column: _number(record[column]) for column in model.config["columns"] if column in record}
        for record in records
    ]
    for likely in model.probabilities(known):
        best = max(likely, key=lambda name: likely[name])
        print(f"{best}\t{likely[best]:.4f}")


if __name__ == "__main__":
    main()
