"""Ask an exported classifier about the records of a CSV file.

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
    """The network in a folder."""

    def __init__(self, folder: str | Path) -> None:
        self.config = json.loads((Path(folder) / "config.json").read_text())
        self._tensors = load_file(Path(folder) / self.config["weights"])

    def probabilities(
        self, records: Iterable[Mapping[str, float | None]]
    ) -> list[dict[str, float]]:
        """The probability of each class for each record; null is a missing number.

        Raises `ValueError` for a record without all columns.
        """
        columns, classes = self.config["columns"], self.config["classes"]
        read = [[_number(_value(record, column)) for column in columns] for record in records]
        values = self._scaled(np.array(read, np.float32).reshape(-1, len(columns)))
        for layer in range(self.config["layers"]):
            if layer:
                values = np.maximum(values, 0.0)  # Rectified linear units.
            weight, bias = (self._tensors[f"layers.{layer}.{name}"] for name in ("weight", "bias"))
            values = values @ weight.T + bias
        likely = np.exp(values - values.max(axis=1, keepdims=True))
        likely /= likely.sum(axis=1, keepdims=True)
        return [dict(zip(classes, map(float, row), strict=True)) for row in likely]

    def _scaled(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """In deviations from the mean, clipped; what is missing counts as the mean."""
        scaling = self.config["scaling"]
        mean, var, count = (self._tensors[f"standard.{name}"] for name in ("mean", "var", "count"))
        deviation = np.maximum(np.sqrt(var), scaling["least_deviation"])
        scaled = (values - mean) / deviation
        scaled[:, np.broadcast_to(count == 0.0, mean.shape)] = 0.0  # Its mean is unknown.
        most = scaling["most_deviations"]
        clipped: NDArray[np.float32] = np.clip(np.nan_to_num(scaled, nan=0.0), -most, most)
        return clipped.astype(np.float32)


def _value(record: Mapping[str, float | None], column: str) -> float | None:
    if column not in record:
        raise ValueError(f"a record lacks the column {column}")
    return record[column]


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
