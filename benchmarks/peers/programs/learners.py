"""What a site of a peer does: the recipe `classifier` in plain NumPy.

Runs in the peers' environments, which do not have DA-ITN. Batches, Adam and clipping are those of
the recipe, number by number, without its noise on the weights (`tests/benchmarks/test_peers.py`
compares both). It uses NumPy because importing PyTorch takes 2.6 s of CPU time in each process, and
Flower starts one for each message: the peers are spared this.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Learner", "Progress"]

Array = NDArray[np.float32]
_MOST_GRADIENT, _MOST_DEVIATIONS, _LEAST_STEPS = 1.0, 5.0, 8
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8


class Learner:
    """A model, and one site's data or the test's."""

    def __init__(self, folder: Path, site: str = "") -> None:
        """`site`: whose data; left out: the test."""
        task = json.loads((folder / "task.json").read_text())
        config: dict[str, Any] = task["config"]
        self._folder = folder
        self._rate = float(config.get("learning_rate", 1e-3))
        self._batch = int(config.get("batch", 32))
        path = folder / (task["sites"][site] if site else task["test"])
        names, *rows = (line.split(",") for line in path.read_text().split())
        ranges = config["ranges"]
        low, high = np.array([ranges.get(name, ranges.get("*")) for name in names[:-1]]).T
        values = np.array([row[:-1] for row in rows], np.float32)
        scaled = (values - (low + high) / 2) / ((high - low) / 12**0.5)
        self._x = scaled.clip(-_MOST_DEVIATIONS, _MOST_DEVIATIONS).astype(np.float32)
        self._y = np.array([config["classes"].index(row[-1]) for row in rows])

    def fresh(self) -> list[Array]:
        """The weights that all begin with: weight and bias of each layer."""
        kept = np.load(self._folder / "fresh.npz")
        return [kept[f"w{number}"] for number in range(len(kept.files))]

    def examples(self, epochs: float) -> int:
        """How many examples so many epochs are."""
        return max(1, round(epochs * len(self._y)))

    def train(self, given: list[Array], epochs: float, seed: int, mu: float = 0.0) -> list[Array]:
        """The weights after so many epochs; `mu`: pull towards those that arrived (FedProx)."""
        weights = [np.array(weight, np.float32) for weight in given]
        means = [np.zeros_like(weight) for weight in weights]
        squares = [np.zeros_like(weight) for weight in weights]
        left = self.examples(epochs)
        batch = max(1, min(self._batch, left // _LEAST_STEPS))
        rng, order, step = np.random.default_rng(seed), np.zeros(0, np.int64), 0
        while left > 0:
            size = min(batch, left)
            while len(order) < size:
                order = np.concatenate((order, rng.permutation(len(self._y))))
            rows, order = order[:size], order[size:]
            left, step = left - size, step + 1
            gradients = self._gradients(weights, rows)
            if mu:
                for gradient, weight, arrived in zip(gradients, weights, given, strict=True):
                    gradient += np.float32(mu) * (weight - arrived)
            norm = float(np.sqrt(sum(float((one**2).sum()) for one in gradients)))
            scale = np.float32(min(1.0, _MOST_GRADIENT / (norm + 1e-6)))
            for number, gradient in enumerate(gradients):
                gradient *= scale
                means[number] += (1 - _BETA_1) * (gradient - means[number])
                squares[number] += (1 - _BETA_2) * (gradient**2 - squares[number])
                root = np.sqrt(squares[number]) / (1 - _BETA_2**step) ** 0.5 + _EPSILON
                weights[number] -= self._rate / (1 - _BETA_1**step) * means[number] / root
        return weights

    def accuracy(self, weights: list[Array]) -> float:
        """On this data."""
        return float((self._layers(weights, self._x)[-1].argmax(1) == self._y).mean())

    def _gradients(self, weights: list[Array], rows: NDArray[np.int64]) -> list[Array]:
        outs = self._layers(weights, self._x[rows])
        scores = outs[-1] - outs[-1].max(1, keepdims=True)
        slope: Array = np.exp(scores)
        slope /= slope.sum(1, keepdims=True)
        slope[np.arange(len(rows)), self._y[rows]] -= 1.0
        slope /= np.float32(len(rows))
        found: list[Array] = []
        for layer in reversed(range(len(weights) // 2)):
            found[:0] = [slope.T @ outs[layer], slope.sum(0)]
            slope = (slope @ weights[2 * layer]) * (outs[layer] > 0)
        return found

    def _layers(self, weights: list[Array], x: Array) -> list[Array]:
        """Inputs of each layer, and the scores."""
        outs = [x]
        for layer in range(len(weights) // 2):
            x = outs[-1] if not layer else np.maximum(outs[-1], 0.0)
            outs[-1] = x
            outs.append(x @ weights[2 * layer].T + weights[2 * layer + 1])
        return outs


class Progress:
    """Where a run tells its measured values: a line of JSON each, with the time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def tell(self, number: int, value: float, seen: int) -> None:
        """Add a model's accuracy; `seen`: how many sites' models are in it."""
        line = {"round": number, "at_s": time.time(), "value": value, "seen": seen}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
