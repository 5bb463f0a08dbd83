"""Who brings what, by real classifiers of handwritten digits that sites trained and a verifier
measured: the recipe's own merges and tests, no model of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from tests.learning.test_merging import DIGITS, table

from daitn.control.value.game import NOBODY, Coalition, Game, Worth
from daitn.learning.classifier import Classifier
from daitn.learning.recipe import MergeTask
from daitn.objects.merging import MergeRule

CLEAN, TWIN, POISONED, OTHER, SMALL = range(5)
"""Sites: the first two hold the same records; the third has its labels mixed up; the fourth has
digits that nobody else has; the fifth has a few."""
ONE_ROUND = 800


pytestmark = pytest.mark.usefixtures("one_thread")


class Hospital:
    """Five sites train one model for one round."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipe = Classifier()
        self.measured: dict[Coalition, Worth] = {}
        features, labels = load_digits(return_X_y=True)
        rng = np.random.default_rng(0)
        order = rng.permutation(len(labels))
        features, labels = features[order], labels[order]
        names = [f"p{column}" for column in range(64)]
        self.test = table(folder / "test.csv", features[:500], labels[:500], names)
        features, labels = features[500:], labels[500:]
        low = np.flatnonzero(labels < 6)
        of = {
            CLEAN: low[:300],
            TWIN: low[:300],
            POISONED: low[300:600],
            OTHER: np.flatnonzero(labels >= 6)[:300],
            SMALL: low[600:700],
        }
        self.shares = {site: len(rows) for site, rows in of.items()}
        self.base = folder / "base"
        self.base.mkdir()
        self.recipe.initialise(DIGITS, 1, self.base)
        start = table(folder / "all.csv", features[:600], labels[:600], names)
        self.warm = self._trained("warm", self.base, start, 600)
        for site, rows in of.items():
            told = (labels[rows] + 3) % 6 if site == POISONED else labels[rows]
            data = table(folder / f"{site}.csv", features[rows], told, names)
            self._trained(str(site), self.warm, data, ONE_ROUND)

    def _trained(self, name: str, model: Path, data: Path, examples: int) -> Path:
        out = self.folder / name
        out.mkdir()
        self.recipe.train(model, DIGITS, data, examples, 7, out, lambda progress: None)
        return out

    def worth(self, sites: Coalition) -> Worth:
        if sites not in self.measured:
            self.measured[sites] = self._measured(self._merged(sites) if sites else self.warm)
        return self.measured[sites]

    def _merged(self, sites: Coalition) -> Path:
        name = "-".join(map(str, sorted(sites)))
        out = self.folder / f"merged-{name}"
        out.mkdir()
        task = MergeTask(
            base=str(self.warm),
            models=tuple(str(self.folder / str(site)) for site in sorted(sites)),
            shares=tuple(float(self.shares[site]) for site in sorted(sites)),
            rule=MergeRule(),
            seed=1,
        )
        self.recipe.merge(task, DIGITS, out, self.folder / f"moments-{name}")
        return out

    def _measured(self, model: Path) -> Worth:
        found = self.recipe.evaluate(model, DIGITS, self.test, "accuracy")
        return Worth((found.value,), (found.standard_error,))

    def values(self, game: Game) -> list[tuple[float, float]]:
        known = {one: self.worth(one) for one in (NOBODY, game.everybody)}
        while (wanted := game.next(known)) is not None:
            known[wanted] = self.worth(wanted)
        shares = game.shares(known)
        assert shares is not None
        return [
            (
                sum(weight * known[key].values[0] for key, weight in share.weights.items()),
                math.sqrt(share.sampled[0]),
            )
            for share in shares
        ]


def test_a_poisoned_site_does_harm_and_twins_share(tmp_path: Path) -> None:
    scene = Hospital(tmp_path)
    exact = scene.values(Game(5, "digits", most=30))
    values = [value for value, _ in exact]
    assert values[POISONED] < 0.0
    assert values[POISONED] == min(values)
    assert values[TWIN] == pytest.approx(values[CLEAN], abs=1e-9)
    assert len(scene.measured) == 32
    sampled = scene.values(Game(5, "digits", most=12))
    for (near, spread), (true, _) in zip(sampled, exact, strict=True):
        assert abs(near - true) <= 4 * spread
    assert sampled[POISONED][0] < 0.0
