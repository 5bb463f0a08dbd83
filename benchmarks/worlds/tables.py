"""Splits of scikit-learn's bundled tables over sites: skewed, unequal, noisy, poisoned."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.worlds.recorder import Case, SiteData, TestData
from benchmarks.worlds.routes import Effort
from daitn.learning.classifier import Classifier
from daitn.learning.recipe import Selection

__all__ = ["TABLES", "table_cases", "write_table"]

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class _Table:
    """A bundled data set, and what its expert knows."""

    load: Callable[..., tuple[NDArray[np.float64], NDArray[np.int64]]]
    classes: tuple[str, ...]
    topic: str
    experts: tuple[tuple[int, ...], ...]
    """Alternatives for the classes that the expert is asked about; none of them means the rows
    that are hard to tell."""
    rates: tuple[float, ...]
    """Learning rates: small tables need large ones to be learnt in some epochs."""
    sites: tuple[int, int]
    """Fewest and most."""


TABLES = {
    "breast-cancer": _Table(
        datasets.load_breast_cancer,
        ("malignant", "benign"),
        "oncology/breast",
        ((0,), ()),
        (0.001, 0.003),
        (3, 10),
    ),
    "digits": _Table(
        datasets.load_digits,
        tuple("0123456789"),
        "digits",
        ((8, 9), (1, 8), (3, 5, 9)),
        (0.003, 0.01),
        (3, 12),
    ),
    "wine": _Table(
        datasets.load_wine,
        ("barolo", "grignolino", "barbera"),
        "wine",
        ((2,), (1,)),
        (0.01, 0.02),
        (3, 6),
    ),
}
_EFFORT = Effort(random_routes=30, rounds=3)
_BROAD_SHARE, _EXPERT_SHARE = 0.25, 0.25
"""Of the rows of a class, for the broad test; and for the expert's, of those that it is about."""
_TOLD_SHARE = 0.75
"""An owner names the classes that make up so much of the records, where they are few."""

_KINDS = (
    "dirichlet 0.1",
    "dirichlet 0.3",
    "dirichlet 1",
    "single classes",
    "general and specialist",
    "poisoned",
    "noisy",
    "unequal",
    "everything",
    "everything",
)
"""How splits differ; every fifth is held out, with its kind in another family kept for fitting."""
_REPEATED = ("general and specialist", "dirichlet 0.3")
_REPETITIONS = (1, 2, 3)
_REPEATED_ROUTES = 12


def table_cases(family: str, data: Path) -> Iterator[Case]:
    """All splits of a table, written under `data`."""
    table = TABLES[family]
    shift = list(TABLES).index(family)
    for number, kind in enumerate(_KINDS):
        case = _case(family, table, number, kind, data, (number + shift) % 5 == 4)
        yield case
        if kind in _REPEATED:
            for seed in _REPETITIONS:
                yield Case(
                    **{
                        **case.__dict__,
                        "name": f"{case.name}, seed {seed}",
                        "seed": seed,
                        "repeats": case.name,
                        "repeated_routes": _REPEATED_ROUTES,
                    }
                )


def _case(family: str, table: _Table, number: int, kind: str, data: Path, held_out: bool) -> Case:
    name = f"{family} {number}, {kind}"
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
    features, labels = table.load(return_X_y=True)
    classes = table.experts[number % len(table.experts)]
    hard = _expert_rows(features, labels, classes)
    broad, expert, train = _parts(labels, hard, rng)
    expert_topic = f"{table.topic}/{_named(table, classes)}"
    folder = data / name
    tests = (
        TestData("broad", table.topic, folder / "broad.csv", _chance(table)),
        TestData("expert", expert_topic, folder / "expert.csv", _chance(table)),
    )
    _write(tests[0].path, table, features[broad], labels[broad])
    _write(tests[1].path, table, features[expert], labels[expert])
    sites: list[SiteData] = []
    shares = _shares(table, kind, labels[train], hard[train], rng)
    for index, rows in enumerate(train[chosen] for chosen in shares):
        seen, told, flaw = _spoilt(features[rows], labels[rows], index, kind, table, rng)
        path = folder / f"site-{index}.csv"
        _write(path, table, seen, told)
        topics = _topics(table, classes, told, hard[rows])
        sites.append(SiteData(f"site-{index}", path, topics, flaw))
    rate = table.rates[number % 2]
    hidden = [[32], [64], [32, 32]][number % 3]
    config = {"classes": list(table.classes), "hidden": hidden, "learning_rate": rate}
    return Case(
        name=name,
        recipe=Classifier(Selection(least_records=1)),
        config=config,
        sites=tuple(sites),
        tests=tests,
        expert=expert_topic,
        effort=_EFFORT,
        held_out=held_out,
    )


def _chance(table: _Table) -> float:
    return round(1 / len(table.classes), 4)


def _expert_rows(
    features: NDArray[np.float64], labels: Rows, classes: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Which rows the expert is about: some classes, or those that a linear model is unsure of."""
    if classes:
        return np.isin(labels, classes)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
    sure = cross_val_predict(model, features, labels, method="predict_proba").max(axis=1)
    return np.asarray(sure < np.quantile(sure, 0.3))


def _parts(
    labels: Rows, hard: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[Rows, Rows, Rows]:
    """Rows of the broad test, of the expert's, and for training: no row is in two of them."""
    broad: list[Rows] = []
    expert: list[Rows] = []
    train: list[Rows] = []
    for label in np.unique(labels):
        for about in (False, True):
            rows = rng.permutation(np.flatnonzero((labels == label) & (hard == about)))
            first = round(len(rows) * _BROAD_SHARE)
            second = first + (round(len(rows) * _EXPERT_SHARE) if about else 0)
            broad.append(rows[:first])
            expert.append(rows[first:second])
            train.append(rows[second:])
    parts = (np.sort(np.concatenate(part)) for part in (broad, expert, train))
    first_part, second_part, third_part = parts
    return first_part, second_part, third_part


def _shares(
    table: _Table, kind: str, labels: Rows, hard: NDArray[np.bool_], rng: np.random.Generator
) -> list[Rows]:
    """Which training rows lie at which site."""
    count = int(rng.integers(table.sites[0], table.sites[1] + 1))
    if kind == "single classes":
        # each class at one site; a mixed one beside them in half of the cases
        owners = rng.permutation(len(table.classes))[labels]
        if rng.random() < 0.5:
            owners = np.where(rng.random(len(labels)) < 0.2, len(table.classes), owners)
    elif kind == "general and specialist":
        # general sites have hardly any record that the expert is about
        owners = _dealt(labels, count - 1, 1.0, 0.3, rng)
        owners = np.where(hard & (rng.random(len(labels)) < 0.95), count - 1, owners)
        stray = ~hard & (rng.random(len(labels)) < 0.05)
        owners = np.where(stray, count - 1, owners)
    else:
        alpha, sigma = _skew(kind, rng)
        owners = _dealt(labels, count, alpha, sigma, rng)
    sites = [np.flatnonzero(owners == site) for site in np.unique(owners)]
    return [rows for rows in sites if len(rows) >= 4]


def _skew(kind: str, rng: np.random.Generator) -> tuple[float, float]:
    """Dirichlet's alpha, and the spread of sizes (standard deviation of their logarithms)."""
    if kind.startswith("dirichlet"):
        return float(kind.split()[1]), 0.3
    if kind == "unequal":
        return 1.0, 1.5
    return float(np.exp(rng.uniform(np.log(0.1), 0.0))), float(rng.uniform(0.2, 1.2))


def _dealt(labels: Rows, count: int, alpha: float, sigma: float, rng: np.random.Generator) -> Rows:
    """A site per row: of every class, shares drawn from a Dirichlet (Hsu et al. 2019,
    arXiv:1909.06335) times the sites' sizes."""
    sizes = np.exp(sigma * rng.standard_normal(count))
    owners = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        shares = rng.dirichlet(np.full(count, alpha)) * sizes + 1e-9
        owners[rows] = rng.choice(count, len(rows), p=shares / shares.sum())
    return owners


def _spoilt(
    features: NDArray[np.float64],
    labels: Rows,
    index: int,
    kind: str,
    table: _Table,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], Rows, str]:
    """A site's records with its flaw, and the flaw in words."""
    flawed = (kind in ("poisoned", "noisy") and index in (0, 2)) or (
        kind == "everything" and rng.random() < 0.25
    )
    if not flawed:
        return features, labels, ""
    if kind == "poisoned" or (kind == "everything" and rng.random() < 0.5):
        share = float(rng.choice([0.3, 0.6, 0.9]))
        wrong = (labels + rng.integers(1, len(table.classes), len(labels))) % len(table.classes)
        mixed = np.where(rng.random(len(labels)) < share, wrong, labels)
        return features, mixed, f"{share:.0%} of the labels are wrong"
    deviations = float(rng.choice([1.0, 2.0, 4.0]))
    spread = features.std(axis=0) + 1e-9
    noise = rng.standard_normal(features.shape) * deviations * spread
    return features + noise, labels, f"noise of {deviations:g} deviations in all columns"


def _topics(
    table: _Table, expert: tuple[int, ...], labels: Rows, hard: NDArray[np.bool_]
) -> tuple[str, ...]:
    """What an owner would say the records are about."""
    if hard.mean() >= _TOLD_SHARE and len(np.unique(labels)) > 1:
        return (f"{table.topic}/{_named(table, expert)}",)
    names, counts = np.unique(labels, return_counts=True)
    order = np.argsort(-counts)
    needed = int(np.searchsorted(np.cumsum(counts[order]) / len(labels), _TOLD_SHARE)) + 1
    if needed > max(1, len(table.classes) // 4):
        return (table.topic,)
    return tuple(_topic(table, expert, int(names[index])) for index in order[:needed])


def _topic(table: _Table, expert: tuple[int, ...], label: int) -> str:
    if label not in expert:
        return f"{table.topic}/{table.classes[label]}"
    group = _named(table, expert)
    return f"{table.topic}/{group}" + (f"/{table.classes[label]}" if len(expert) > 1 else "")


def _named(table: _Table, classes: tuple[int, ...]) -> str:
    return "-".join(table.classes[index] for index in classes) or "unclear"


def _write(path: Path, table: _Table, features: NDArray[np.float64], labels: Rows) -> None:
    names = [f"x{n}" for n in range(features.shape[1])]
    write_table(path, names, features, [table.classes[label] for label in labels])


def write_table(
    path: Path, names: Sequence[str], features: NDArray[np.float64], labels: Sequence[str]
) -> None:
    """A record a line: its numbers, then its label."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*names, "label"])
        for row, label in zip(features, labels, strict=True):
            writer.writerow([*(f"{value:.6g}" for value in row), label])
