"""The jobs that all systems do: data of each site, tests, targets and the model, as plain files.

A task is a folder with `task.json` (`Task`) and the files that it names. DA-ITN's sites read the
files as their owners' data; the peers' programs, which run in separate environments, read the same
files, and start with the weights that the recipe derives from the same seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from sklearn import datasets

from benchmarks.worlds.tables import write_table
from daitn.learning.classifier import Classifier

__all__ = ["TASKS", "Task", "read_task", "write_task"]

_FRESH, _TEST = "fresh.npz", "test"


@dataclass(frozen=True)
class Task:
    """One job. Paths are relative to the task's folder."""

    name: str
    seed: int
    """Of the split, of the model, and of the sites' work."""
    config: Mapping[str, Any]
    """Of the recipe `classifier`."""
    sites: Mapping[str, str]
    """Site to its training file."""
    test: str
    target: float
    """Accuracy on the test."""
    leaving: tuple[str, ...]
    """Two sites without which the target can be reached."""
    within_s: float = 300.0
    """After which a job counts as one that missed."""

    def least_sites(self, leaving: bool) -> int:
        """How many sites a round can count on."""
        return len(self.sites) - (len(self.leaving) if leaving else 0)

    @property
    def chance(self) -> float:
        return 1 / len(self.config["classes"])


def read_task(folder: Path) -> Task:
    """The task in a folder."""
    plain = json.loads((folder / "task.json").read_text())
    return Task(**{**plain, "leaving": tuple(plain["leaving"])})


def write_task(name: str, seed: int, folder: Path, **config: Any) -> Task:
    """Write the files of a task of `TASKS` under `folder`; `config` overrides the model's."""
    folder.mkdir(parents=True)
    task = TASKS[name](seed, folder, config)
    (folder / "task.json").write_text(json.dumps(asdict(task), indent=2))
    (made := folder / "fresh").mkdir()
    Classifier().initialise(task.config, seed, made)
    tensors = load_file(made / "weights.safetensors")
    fresh: dict[str, Any] = {_short(key): value for key, value in tensors.items()}
    np.savez(folder / _FRESH, **fresh)
    return task


def _digits(seed: int, folder: Path, config: Mapping[str, Any]) -> Task:
    """Handwritten digits at five sites; each site has four of the ten, each digit is at two sites,
    so that any site may leave, and two that share no digit."""
    x, y = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    test, rest = order[:400], order[400:]
    held: dict[str, list[int]] = {f"site-{site}": [] for site in range(5)}
    for digit in range(10):
        half = np.array_split(rest[y[rest] == digit], 2)
        for site, share in zip((digit // 2, (digit // 2 - 1) % 5), half, strict=True):
            held[f"site-{site}"].extend(share.tolist())
    names = [f"pixel_{number}" for number in range(x.shape[1])]
    labels = [f"digit-{label}" for label in y]

    sites, exam = _tables(folder, names, x, labels, {**held, _TEST: test.tolist()})
    return Task(
        name="digits",
        seed=seed,
        config={
            "classes": [f"digit-{number}" for number in range(10)],
            "features": len(names),
            "hidden": [64],
            "ranges": {"*": [0.0, 16.0]},
            **config,
        },
        sites=sites,
        test=exam,
        target=0.93,
        leaving=("site-0", "site-2"),
    )


def _breast_cancer(seed: int, folder: Path, config: Mapping[str, Any]) -> Task:
    """Wisconsin breast cancer at five hospitals, whose patients differ by a Dirichlet distribution
    over both classes, with parameter 1."""
    x, y = datasets.load_breast_cancer(return_X_y=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    test, rest = order[:142], order[142:]
    held: dict[str, list[int]] = {f"site-{site}": [] for site in range(5)}
    for label in range(2):
        own = rest[y[rest] == label]
        cuts = np.cumsum(rng.dirichlet(np.ones(5)))[:-1] * len(own)
        for site, share in enumerate(np.split(own, cuts.astype(int))):
            held[f"site-{site}"].extend(share.tolist())
    names = [f"column_{number}" for number in range(x.shape[1])]
    labels = ["benign" if label else "malignant" for label in y]
    by_size = sorted(held, key=lambda site: len(held[site]))

    sites, exam = _tables(folder, names, x, labels, {**held, _TEST: test.tolist()})
    ends = zip(names, x.min(axis=0).tolist(), x.max(axis=0).tolist(), strict=True)
    ranges = {column: [low, high] for column, low, high in ends}
    return Task(
        name="breast-cancer",
        seed=seed,
        config={
            "classes": ["benign", "malignant"],
            "features": len(names),
            "hidden": [64],
            "ranges": ranges,
            **config,
        },
        sites=sites,
        test=exam,
        target=0.95,
        leaving=(by_size[0], by_size[2]),
    )


TASKS: Mapping[str, Callable[[int, Path, Mapping[str, Any]], Task]] = {
    "digits": _digits,
    "breast-cancer": _breast_cancer,
}
"""How each task is written."""


def _tables(
    folder: Path,
    names: Sequence[str],
    x: NDArray[np.float64],
    labels: Sequence[str],
    held: Mapping[str, Sequence[int]],
) -> tuple[dict[str, str], str]:
    """Write who holds which records; gives the sites' files, and that of the test."""
    for holder, rows in held.items():
        write_table(folder / f"{holder}.csv", names, x[rows], [labels[row] for row in rows])
    return {site: f"{site}.csv" for site in held if site != _TEST}, f"{_TEST}.csv"


def _short(tensor: str) -> str:
    """`layers.0.weight` as `w0`, of `Learner`."""
    _, layer, kind = tensor.split(".")
    return f"w{2 * int(layer) + (kind == 'bias')}"
