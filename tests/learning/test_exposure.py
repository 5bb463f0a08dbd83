"""Whether models tell what they learned from: an attack by losses on members and others."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daitn.learning.boosted_trees import BoostedTrees
from daitn.learning.classifier import Classifier
from daitn.learning.exposure import MEMBER, UNEXPOSED, mistaken, unexposed
from daitn.learning.recipe import DataFault

CONFIG = {"classes": ["a", "b"], "hidden": [64], "learning_rate": 0.01, "batch": 20}
COLUMNS = ("x", "y", "z")


def written(path: Path, rows: np.ndarray, labels: np.ndarray, member: np.ndarray | None) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, *([MEMBER] if member is not None else []), "label"])
        for at, row in enumerate(rows):
            told = [int(member[at])] if member is not None else []
            writer.writerow([*row, *told, "ab"[labels[at]]])
    return path


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Canaries: records with random labels, of which a site has half."""
    folder = tmp_path_factory.mktemp("probes")
    rng = np.random.default_rng(4)
    rows, labels = rng.normal(size=(120, 3)), rng.integers(0, 2, 120)
    member = np.arange(120) % 2 == 0
    return {
        "folder": folder,
        "site": written(folder / "site.csv", rows[member], labels[member], None),
        "elsewhere": written(
            folder / "elsewhere.csv", rng.normal(size=(60, 3)), rng.integers(0, 2, 60), None
        ),
        "probes": written(folder / "probes.csv", rows, labels, member),
        "test": written(folder / "test.csv", rows, labels, None),
    }


def measured(recipe: Any, config: dict[str, Any], scene: dict[str, Path], data: str) -> Any:
    """A model that went through the canaries of a site, or of another one, many times."""
    fresh, out = (scene["folder"] / f"{recipe.name}-{data}-{what}" for what in ("fresh", "out"))
    fresh.mkdir()
    out.mkdir()
    recipe.initialise(config, 1, fresh)
    recipe.train(fresh, config, scene[data], 60 * 40, 1, out, lambda progress: None)
    return recipe.evaluate(out, config, scene["probes"], UNEXPOSED)


@pytest.mark.parametrize(
    ("recipe", "config"),
    [(Classifier(), CONFIG), (BoostedTrees(), {"classes": ["a", "b"], "rounds": 4})],
)
def test_a_model_that_memorised_canaries_is_told_from_one_that_did_not(
    recipe: Any, config: dict[str, Any], scene: dict[str, Path]
) -> None:
    told = measured(recipe, config, scene, "site")
    kept = measured(recipe, config, scene, "elsewhere")
    assert told.items == kept.items == 120
    assert told.value < 0.4 < kept.value
    assert abs(kept.value - 0.5) < 3 * kept.standard_error


def test_the_attack_is_wrong_about_half_of_what_it_knows_nothing_of() -> None:
    """Within the error that is told, as often as that says."""
    rng = np.random.default_rng(1)
    beyond = 0
    for _ in range(400):
        wrong = mistaken(rng.normal(size=100), rng.permutation(np.arange(100) % 2 == 0))
        beyond += abs(float(wrong.mean()) - 0.5) > 1.96 * 0.05
    assert beyond <= 0.05 * 400 + 3 * 4.4
    same = mistaken(np.zeros(10), np.arange(10) % 2 == 0)
    assert float(same.mean()) == 0.5


@pytest.mark.parametrize("recipe", [Classifier(), BoostedTrees()])
def test_exposure_is_offered_on_probes_alone(recipe: Any, scene: dict[str, Path]) -> None:
    plain = recipe.inspect_test(scene["test"])
    assert plain.metrics == ("accuracy", "balanced_accuracy")
    assert any("no column member" in remark for remark in plain.remarks)
    assert not recipe.inspect_test(scene["probes"]).metrics, "all of them"
    assert not recipe.inspect(scene["site"]).remarks, "data for training lacks nothing"


def test_a_plain_test_set_is_none_of_probes(scene: dict[str, Path]) -> None:
    model = scene["folder"] / "plain"
    model.mkdir()
    recipe = Classifier()
    recipe.initialise(CONFIG, 1, model)
    with pytest.raises(DataFault, match="no column member"):
        recipe.evaluate(model, CONFIG, scene["test"], UNEXPOSED)


def test_losses_that_are_not_finite_count_as_told() -> None:
    """A model made to have none for members must not pass for one that reveals nothing of them."""
    losses, member = np.array([0.1, 0.2, 0.3, np.nan, 0.9, np.inf]), np.arange(6) < 3
    assert mistaken(losses, member).tolist() == [0.0] * 6
    with pytest.raises(DataFault, match="not finite"):
        mistaken(np.where(member, np.nan, np.inf), member)


def test_no_loss_that_tells_members_raises_the_figure() -> None:
    """Whether members have lower losses than others, higher ones, or hardly any."""
    rng, member = np.random.default_rng(2), np.arange(200) % 2 == 0
    told = rng.normal(size=200) - 3 * member
    hidden = np.where(member & (rng.random(200) < 0.96), np.nan, told)
    for losses in (told, -told, hidden, -hidden):
        assert unexposed(losses, member).value < 0.1
    ignorant = rng.normal(size=200)
    assert unexposed(ignorant, member).value == unexposed(-ignorant, member).value > 0.4
