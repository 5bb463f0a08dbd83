"""The recipe `boosted-trees`, beside xgboost itself."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_wine

from daitn.learning.answering.protocol import Message, Question
from daitn.learning.boosted_trees import BoostedTrees, parts, training
from daitn.learning.boosted_trees.config import parse_config
from daitn.learning.boosted_trees.ensemble import END, Ensemble, log_probabilities
from daitn.learning.boosted_trees.parts import TreesState
from daitn.learning.recipe import DataFault, Fault, MergeTask, Progress, Selection, Trained
from daitn.learning.trainer import Trainer
from daitn.objects.errors import Corrupt, InvalidInput
from daitn.objects.merging import RULES, Algorithm, MergeRule

Features = NDArray[np.float32]
EXACT = {"learning_rate": 0.3, "rounds": 5, "depth": 3}


def names(columns: int) -> list[str]:
    return [f"x{column}" for column in range(columns)]


def write(
    path: Path,
    features: NDArray[Any],
    labels: Sequence[object] | NDArray[np.int64],
    columns: Sequence[str] = (),
) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(columns or names(features.shape[1])), "label"])
        for row, label in zip(features, labels, strict=True):
            writer.writerow([*("" if np.isnan(v) else repr(float(v)) for v in row), label])
    return path


def whole_numbers(seed: int, records: int, classes: int) -> tuple[Features, NDArray[np.int64]]:
    """Some of them missing; the class depends on two columns, not always."""
    rng = np.random.default_rng(seed)
    features = rng.integers(0, 12, (records, 4)).astype(np.float32)
    labels = ((features[:, 0] + 2 * features[:, 1]) / 36.1 * classes).astype(np.int64)
    labels = np.where(rng.random(records) < 0.2, rng.integers(0, classes, records), labels)
    features[rng.random(features.shape) < 0.1] = np.nan
    return features, labels


def initialise(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir()
    BoostedTrees().initialise(config, 0, folder)
    return folder


def visit(
    model: Path, config: dict[str, Any], data: Path, out: Path, examples: int, **more: Any
) -> Trained:
    out.mkdir()
    recipe = BoostedTrees(Selection(**more.pop("selection", {})))
    watch = more.pop("watch", lambda progress: None)
    return recipe.train(model, config, data, examples, more.pop("seed", 1), out, watch)


def merged(
    base: Path,
    models: Sequence[Path],
    config: dict[str, Any],
    out: Path,
    shares: Sequence[float] = (),
    rule: MergeRule | None = None,
) -> Path:
    out.mkdir()
    task = MergeTask(
        base=str(base),
        models=tuple(map(str, models)),
        shares=tuple(shares or [1.0] * len(models)),
        rule=rule or MergeRule(),
        seed=0,
    )
    BoostedTrees().merge(task, config, out, out / "moments")
    return out


def state(model: Path, config: dict[str, Any]) -> TreesState:
    return parts.read(model, parse_config(config))


def margins(model: Path, config: dict[str, Any], features: Features) -> Features:
    return state(model, config).trees.margins(features, parse_config(config).groups)


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise, and with a bin for each whole number."""
    monkeypatch.setattr(training, "_NOISE", 0.0)
    monkeypatch.setattr(training, "_ROUNDING", 0.0)
    edges = np.arange(0.5, 49.0, dtype=np.float32)
    monkeypatch.setattr(training, "edges_of", lambda standard: np.tile(edges, (4, 1)))


def central(config: dict[str, Any], sites: Sequence[tuple[Features, Any]], rounds: int) -> Any:
    """xgboost by its own means, one site after the other."""
    groups = parse_config(config).groups
    options = {
        "objective": "binary:logistic" if groups == 1 else "multi:softprob",
        "max_depth": config["depth"],
        "eta": config["learning_rate"],
        "base_score": 0.5 if groups == 1 else 0.0,  # Of several classes, a score.
        "min_child_weight": 10 * (0.25 if groups == 1 else 0.5),
        "nthread": 1,
        **({} if groups == 1 else {"num_class": groups}),
    }
    booster = None
    for features, labels in sites:
        matrix = xgboost.DMatrix(features, label=labels, feature_names=names(features.shape[1]))
        booster = xgboost.train(options, matrix, rounds, xgb_model=booster)
    return booster


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(("classes", "visits"), [(2, 3), (3, 2)])
def test_visits_in_a_row_are_continued_training_of_xgboost(
    tmp_path: Path, classes: int, visits: int
) -> None:
    """In a third visit of three classes two splits are equally good, and rounding decides."""
    config = {"classes": list(map(str, range(classes))), **EXACT}
    sites = [whole_numbers(seed, 400, classes) for seed in range(visits)]
    model = initialise(tmp_path / "fresh", config)
    for number, (features, labels) in enumerate(sites):
        out = tmp_path / f"{number}"
        visit(model, config, write(tmp_path / f"{number}.csv", features, labels), out, 400)
        model = out
    booster = central(config, sites, 5)
    features, _ = whole_numbers(9, 500, classes)
    matrix = xgboost.DMatrix(features, feature_names=names(4))
    expected = booster.predict(matrix, output_margin=True).reshape(500, -1)
    assert np.array_equal(margins(model, config, features), expected), "to the last bit"


@pytest.mark.parametrize("classes", [2, 3])
def test_a_merge_scores_as_the_weighed_mean_of_the_sites(tmp_path: Path, classes: int) -> None:
    config = {"classes": list(map(str, range(classes))), **EXACT}
    sites = [
        write(tmp_path / f"{seed}.csv", *whole_numbers(seed, 200, classes)) for seed in range(3)
    ]
    base = tmp_path / "base"
    visit(initialise(tmp_path / "fresh", config), config, sites[0], base, 200)
    models = [tmp_path / f"m{number}" for number in range(3)]
    for site, out in zip(sites, models, strict=True):
        visit(base, config, site, out, 300)
    shares = [1.0, 2.0, 5.0]
    both = merged(base, models, config, tmp_path / "merged", shares, MergeRule(rate=1.5))
    features, _ = whole_numbers(9, 300, classes)
    start = margins(base, config, features).astype(float)
    mean = sum(
        share / 8.0 * (margins(model, config, features) - start)
        for share, model in zip(shares, models, strict=True)
    )
    np.testing.assert_allclose(margins(both, config, features), start + 1.5 * mean, atol=1e-5)
    count = [len(state(model, config).trees) for model in (base, *models, both)]
    assert count[-1] == sum(count[1:4]) - 2 * count[0]


def breast_cancer(folder: Path, sites: int) -> tuple[list[Path], Path]:
    """Sites of unlike shares of classes, and a test set."""
    loaded, rng = load_breast_cancer(), np.random.default_rng(0)
    columns = [str(name).replace(" ", "_") for name in loaded.feature_names]
    order = rng.permutation(len(loaded.target))
    test, rest = order[:142], order[142:]
    homes = np.where(
        rng.random(len(rest)) < 0.7, loaded.target[rest], rng.integers(0, sites, len(rest))
    )
    rows = [test, *(rest[homes % sites == site] for site in range(sites))]
    files = [
        write(folder / f"site{n}.csv", loaded.data[r], [f"c{y}" for y in loaded.target[r]], columns)
        for n, r in enumerate(rows)
    ]
    return files[1:], files[0]


CANCER = {"classes": ["c0", "c1"]}


def test_hospitals_of_unlike_patients_teach_a_diagnosis_in_a_row_and_in_rounds(
    tmp_path: Path,
) -> None:
    sites, test = breast_cancer(tmp_path, 3)
    model = fresh = initialise(tmp_path / "fresh", CANCER)
    for number, data in enumerate(sites * 2):
        examples = BoostedTrees().inspect(data).samples
        visit(model, CANCER, data, tmp_path / f"row{number}", examples, seed=number)
        model = tmp_path / f"row{number}"
    in_a_row = BoostedTrees().evaluate(model, CANCER, test, "accuracy")
    base = fresh
    for number in range(3):
        models = [tmp_path / f"round{number}-{site}" for site in range(3)]
        for data, out in zip(sites, models, strict=True):
            visit(base, CANCER, data, out, 3 * BoostedTrees().inspect(data).samples)
        base = merged(base, models, CANCER, tmp_path / f"round{number}")
    in_rounds = BoostedTrees().evaluate(base, CANCER, test, "balanced_accuracy")
    assert in_a_row.value >= 0.9
    assert in_rounds.value >= 0.9
    assert set(in_a_row.by_label) == {"c0", "c1"}
    assert in_a_row.items == 142


def test_every_leaf_rests_on_enough_records_and_every_threshold_is_coarse(tmp_path: Path) -> None:
    config = {"classes": ["c0", "c1"], "depth": 6, "rounds": 20}
    sites, _ = breast_cancer(tmp_path, 1)
    fresh, out = initialise(tmp_path / "fresh", config), tmp_path / "out"
    visit(fresh, config, sites[0], out, 427, selection={"least_records": 30})
    made = state(out, config)
    with sites[0].open() as file:
        rows = np.array([row[:-1] for row in list(csv.reader(file))[1:]], np.float32)
    assert made.standard is not None
    splits = made.trees.column != END
    column, threshold = made.trees.column[splits], made.trees.threshold[splits]
    steps = (threshold - made.standard.mean.numpy()[column]) / made.standard.var.sqrt().numpy()[
        column
    ]
    np.testing.assert_allclose(8 * steps, np.round(8 * steps), atol=0.02)
    leaves = np.arange(2**6, dtype=np.float32)
    for number in range(len(made.trees)):
        tree = made.trees.part(slice(number, number + 1)).but(leaf=leaves[None])
        ends = tree.margins(rows, 1)[:, 0]
        assert np.unique(ends, return_counts=True)[1].min() >= 30


def test_repeated_records_count_as_often_as_they_differ(tmp_path: Path) -> None:
    features, labels = whole_numbers(1, 60, 2)
    config = {"classes": ["0", "1"], "depth": 1, "rounds": 1}
    fresh = initialise(tmp_path / "fresh", config)
    trees = []
    for times in (1, 5):
        out = tmp_path / f"{times}"
        many = write(tmp_path / "data.csv", np.tile(features, (times, 1)), list(labels) * times)
        visit(fresh, config, many, out, 60 * times, selection={"least_records": 25})
        trees.append(state(out, config).trees)
    assert np.array_equal(trees[0].column, trees[1].column)


def test_the_same_arguments_give_the_same_model_and_another_seed_other_noise(
    tmp_path: Path,
) -> None:
    data = write(tmp_path / "data.csv", *whole_numbers(1, 100, 2))
    config = {"classes": ["0", "1"]}
    fresh = initialise(tmp_path / "fresh", config)
    for number, seed in enumerate([5, 5, 6]):
        visit(fresh, config, data, tmp_path / f"{number}", 100, seed=seed)
    made = [(tmp_path / f"{number}" / parts.TREES).read_bytes() for number in range(3)]
    assert made[0] == made[1] != made[2]


def test_a_visit_tells_how_far_it_is_with_bounded_losses(tmp_path: Path) -> None:
    data = write(tmp_path / "data.csv", *whole_numbers(1, 100, 2))
    config = {"classes": ["0", "1"], "rounds": 40}
    told: list[Progress] = []
    fresh = initialise(tmp_path / "fresh", config)
    visit(fresh, config, data, tmp_path / "out", 200, watch=told.append)
    assert len(told) == 20
    assert told[-1].examples == told[-1].of_examples == 200
    assert told[0].loss > told[-1].loss
    assert all(one.loss <= math.log(2) for one in told)
    assert told[0].sensitivity == pytest.approx(2 * math.log(2))


def test_a_short_visit_draws_its_records_by_the_seed(tmp_path: Path) -> None:
    data = write(tmp_path / "data.csv", *whole_numbers(1, 300, 2))
    config = {"classes": ["0", "1"]}
    fresh = initialise(tmp_path / "fresh", config)
    for seed in (1, 2):
        visit(fresh, config, data, tmp_path / f"{seed}", 60, seed=seed)
    one, other = (state(tmp_path / f"{seed}", config).trees for seed in (1, 2))
    assert len(one) == len(other) == 10
    assert not np.array_equal(one.column, other.column)


def test_other_columns_other_labels_and_full_models_are_refused(tmp_path: Path) -> None:
    features, labels = whole_numbers(1, 100, 2)
    data = write(tmp_path / "data.csv", features, labels)
    config = {"classes": ["0", "1"], "most_trees": 15}
    fresh = initialise(tmp_path / "fresh", config)
    model = tmp_path / "model"
    visit(fresh, config, data, model, 100)
    other = write(tmp_path / "other.csv", features, labels, ["x0", "x1", "x2", "age"])
    with pytest.raises(DataFault) as refused:
        visit(model, config, other, tmp_path / "a", 100)
    assert refused.value.fault is Fault.OTHER_COLUMNS
    strange = write(tmp_path / "strange.csv", features, labels + 1)
    with pytest.raises(DataFault) as unknown:
        visit(model, config, strange, tmp_path / "b", 100)
    assert unknown.value.fault is Fault.OTHER_LABELS
    visit(model, config, data, tmp_path / "full", 100)
    assert len(state(tmp_path / "full", config).trees) == 15, "as many as there is room for"
    with pytest.raises(InvalidInput) as full:
        visit(tmp_path / "full", config, data, tmp_path / "c", 100)
    assert full.value.field == "model.config.most_trees"
    with pytest.raises(InvalidInput) as unfit:
        merged(model, [tmp_path / "full"] * 3, config, tmp_path / "d")
    assert unfit.value.field == "model.config.most_trees"


def test_columns_are_known_by_their_names(tmp_path: Path) -> None:
    features, labels = whole_numbers(1, 200, 2)
    config = {"classes": ["0", "1"], **EXACT}
    usual = write(tmp_path / "usual.csv", features, labels)
    turned = write(tmp_path / "turned.csv", features[:, ::-1], labels, names(4)[::-1])
    fresh = initialise(tmp_path / "fresh", config)
    for name, data in (("one", usual), ("other", turned)):
        visit(fresh, config, data, tmp_path / name, 200)
    alike = merged(fresh, [tmp_path / "one", tmp_path / "other"], config, tmp_path / "both")
    scores = margins(alike, config, features)
    separate = (
        margins(tmp_path / "one", config, features)
        + margins(tmp_path / "other", config, features[:, ::-1])
    ) / 2
    np.testing.assert_allclose(scores, separate, atol=1e-5)
    measured = [
        BoostedTrees().evaluate(alike, config, data, "accuracy") for data in (usual, turned)
    ]
    assert measured[0] == measured[1]


def test_a_merge_refuses_models_that_forget_or_forge_their_beginning(tmp_path: Path) -> None:
    config = {"classes": ["0", "1"], **EXACT}
    data = write(tmp_path / "data.csv", *whole_numbers(1, 100, 2))
    base, model = tmp_path / "base", tmp_path / "model"
    visit(initialise(tmp_path / "fresh", config), config, data, base, 100)
    visit(base, config, data, model, 100)
    made = state(model, config)
    forged = tmp_path / "forged"
    forged.mkdir()
    leaf = made.trees.leaf.copy()
    leaf[0, 0] += 1.0
    parts.write(TreesState(made.columns, made.trees.but(leaf=leaf), made.standard), forged)
    for bad in (forged, tmp_path / "fresh", base):
        with pytest.raises(Corrupt) as refused:
            merged(base, [model, bad], config, tmp_path / f"with-{bad.name}")
        assert refused.value.field == "models[1]"
    for algorithm in (Algorithm.MEDIAN, Algorithm.FEDADAM, Algorithm.TIES):
        with pytest.raises(InvalidInput) as impossible:
            merged(base, [model], config, tmp_path / algorithm, rule=RULES[algorithm])
        assert "fedavg" in impossible.value.fix


@pytest.mark.parametrize("load", [load_breast_cancer, load_wine])
def test_what_is_exported_scores_the_same_elsewhere_and_comes_back(
    tmp_path: Path, load: Any
) -> None:
    from daitn.learning.boosted_trees import predict
    from daitn.learning.recipe import Form

    features, target = load(return_X_y=True)
    features = features.astype(np.float32)
    features[::7, 0] = np.nan
    columns = [f"ß{n}" for n in range(features.shape[1])]
    classes = [f"c{n}" for n in range(target.max() + 1)]
    config = {"classes": classes, "rounds": 5}
    data = write(tmp_path / "data.csv", features, [classes[n] for n in target], columns)
    model = tmp_path / "model"
    visit(initialise(tmp_path / "fresh", config), config, data, model, len(target))
    likely = np.exp(log_probabilities(margins(model, config, features)))

    (out := tmp_path / "xgboost").mkdir()
    BoostedTrees().export_model(model, config, Form.XGBOOST, out)
    booster = xgboost.Booster(model_file=out / "model.json")
    told = booster.predict(xgboost.DMatrix(features, feature_names=columns))
    np.testing.assert_allclose(told, likely[:, 1] if len(classes) == 2 else likely, atol=1e-6)

    (back := tmp_path / "back").mkdir()
    imported = BoostedTrees().import_model(out, back).config
    assert imported["classes"] == classes
    np.testing.assert_array_equal(
        margins(back, imported, features), margins(model, config, features)
    )
    again = tmp_path / "again"
    visit(back, imported | {"rounds": 5}, data, again, len(target))
    assert len(state(again, imported).trees) == 2 * len(state(back, imported).trees)

    BoostedTrees().export_model(model, config, Form.PARTS, model)
    records = [
        {c: None if np.isnan(v) else float(v) for c, v in zip(columns, row, strict=True)}
        for row in features
    ]
    found = predict.Model(model).probabilities(records)
    np.testing.assert_allclose([list(one.values()) for one in found], likely, atol=1e-6)
    with pytest.raises(InvalidInput):
        BoostedTrees().export_model(model, config, Form.GGUF, out)


@pytest.mark.parametrize("classes", [2, 3])
def test_models_that_xgboost_trained_are_imported(tmp_path: Path, classes: int) -> None:
    features, labels = whole_numbers(3, 500, classes)
    matrix = xgboost.DMatrix(features, label=labels, feature_names=names(4))
    objective = "binary:logistic" if classes == 2 else "multi:softmax"
    options: dict[str, Any] = {"objective": objective, "nthread": 1, "max_depth": 5}
    options |= {"num_class": classes} if classes > 2 else {}
    booster = xgboost.train(options, matrix, 8)
    booster.save_model(tmp_path / "model.json")
    (out := tmp_path / "parts").mkdir()
    config = BoostedTrees().import_model(tmp_path, out).config
    assert config["classes"] == list(map(str, range(classes)))
    told = booster.predict(matrix, output_margin=True).reshape(500, -1)
    found = margins(out, config, features)
    if classes > 2:
        told, found = (each - each[:, :1] for each in (told, found))
    np.testing.assert_allclose(found, told, atol=1e-5)


def test_answers_name_the_class_of_a_record(tmp_path: Path) -> None:
    features, labels = whole_numbers(1, 300, 2)
    config = {"classes": ["ill", "well"]}
    data = write(tmp_path / "data.csv", features, [config["classes"][n] for n in labels])
    visit(initialise(tmp_path / "fresh", config), config, data, tmp_path / "model", 300)
    answering = BoostedTrees().open(tmp_path / "model", config)
    record = {"x0": 11, "x1": 11, "x2": None, "x3": 3}
    (piece,) = answering.answer(_asked(json.dumps(record)))
    assert piece is not None
    assert piece.text == "well"
    assert piece.logprob is not None
    assert piece.logprob > math.log(0.6)
    with pytest.raises(InvalidInput):
        list(answering.answer(_asked('{"x0": 1}')))


def _asked(content: str) -> Question:
    return Question(messages=(Message("user", content),), max_tokens=None, temperature=0.0, seed=0)


HOSTILE = {"classes": ["a", "b", "c"], "depth": 2, "most_trees": 6}


def small(rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    return {
        "trees.group": rng.integers(0, 3, 4).astype(np.uint16),
        "trees.column": rng.integers(-1, 2, (4, 3)).astype(np.int32),
        "trees.threshold": rng.normal(size=(4, 3)).astype(np.float32),
        "trees.missing": rng.integers(0, 2, (4, 3)).astype(np.uint8),
        "trees.leaf": rng.normal(size=(4, 4)).astype(np.float32),
        "standard.mean": np.zeros(2, np.float32),
        "standard.var": np.ones(2, np.float32),
        "standard.count": np.full(2, 50.0),
    }


ODD = st.sampled_from([-2, -1, 0, 2, 3, 255, 2**31 - 1, -(2**31)]) | st.sampled_from(
    [math.nan, math.inf, -math.inf, 1e30, -1e30]
)


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(small(np.random.default_rng(0)))),
    at=st.integers(0, 15),
    odd=ODD,
    seed=st.integers(0, 99),
)
def test_arrays_of_strangers_are_refused_or_score_numbers(
    tmp_path_factory: pytest.TempPathFactory, name: str, at: int, odd: float, seed: int
) -> None:
    from safetensors.numpy import save_file

    arrays = small(np.random.default_rng(seed))
    array = arrays[name].reshape(-1)
    with np.errstate(all="ignore"):
        array[at % array.size] = np.float64(odd).astype(array.dtype)
    folder = tmp_path_factory.mktemp("stranger")
    save_file(arrays, folder / parts.TREES)
    (folder / parts.COLUMNS).write_text('{"columns": ["x", "y"]}')
    try:
        found = state(folder, HOSTILE)
    except Corrupt:
        return
    scores = found.trees.margins(np.array([[0.5, np.nan], [-1e30, 1e30]], np.float32), 3)
    assert np.isfinite(scores).all()
    assert np.isfinite(log_probabilities(scores)).all()


@settings(max_examples=150, deadline=None)
@given(cut=st.integers(0, 600), junk=st.binary(max_size=8), columns=st.binary(max_size=30))
def test_bytes_of_strangers_are_refused(
    tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes, columns: bytes
) -> None:
    from safetensors.numpy import save

    whole = save(small(np.random.default_rng(0)))
    folder = tmp_path_factory.mktemp("stranger")
    (folder / parts.TREES).write_bytes(whole[:cut] + junk + whole[cut + len(junk) :])
    (folder / parts.COLUMNS).write_bytes(columns or b'{"columns": ["x", "y"]}')
    try:
        found = state(folder, HOSTILE)
    except Corrupt:
        return
    assert np.isfinite(found.trees.margins(np.zeros((1, 2), np.float32), 3)).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"trees.extra": np.zeros(1, np.float32)},
        {"trees.group": np.zeros(7, np.uint16)},
        {"trees.leaf": np.zeros((4, 8), np.float32)},
        {"trees.leaf": np.zeros((4, 4), np.float64)},
        {"standard.mean": np.zeros(3, np.float32)},
        {"standard.var": -np.ones(2, np.float32)},
        {"trees.threshold": None},
    ],
)
def test_other_shapes_are_refused_before_they_are_read(
    tmp_path: Path, changes: dict[str, NDArray[Any] | None]
) -> None:
    from safetensors.numpy import save_file

    arrays = {k: v for k, v in (small(np.random.default_rng(0)) | changes).items() if v is not None}
    save_file(arrays, tmp_path / parts.TREES)
    (tmp_path / parts.COLUMNS).write_text('{"columns": ["x", "y"]}')
    with pytest.raises(Corrupt):
        state(tmp_path, HOSTILE)


def test_a_file_that_is_larger_than_its_configuration_allows_is_not_read(tmp_path: Path) -> None:
    (tmp_path / parts.TREES).write_bytes(bytes(1 << 20))
    (tmp_path / parts.COLUMNS).write_text('{"columns": ["x", "y"]}')
    with pytest.raises(Corrupt, match="bytes"):
        state(tmp_path, HOSTILE)


def a_file() -> dict[str, Any]:
    features, labels = whole_numbers(3, 200, 3)
    matrix = xgboost.DMatrix(features, label=labels, feature_names=names(4))
    options = {"objective": "multi:softprob", "num_class": 3, "nthread": 1, "max_depth": 2}
    found: dict[str, Any] = json.loads(xgboost.train(options, matrix, 2).save_raw("json"))
    return found


def test_xgboost_files_with_circles_and_loose_ends_are_refused(tmp_path: Path) -> None:
    whole = json.dumps(a_file())
    list_of = ("left_children", "right_children", "split_indices", "split_conditions")
    for name in list_of:
        for odd in (0, 1, 99, -5, 2**40, 1e300):
            for place in (0, 1):
                bad = json.loads(whole)
                tree = bad["learner"]["gradient_booster"]["model"]["trees"][0]
                tree[name][place] = odd
                _imports_or_refuses(tmp_path, bad)
        short = json.loads(whole)
        short["learner"]["gradient_booster"]["model"]["trees"][0][name].pop()
        with pytest.raises((Corrupt, InvalidInput)):
            _import(tmp_path, short)
    circle = json.loads(whole)
    circle["learner"]["gradient_booster"]["model"]["trees"][0]["left_children"][0] = 0
    with pytest.raises(Corrupt, match="deep"):
        _import(tmp_path, circle)


def _import(folder: Path, content: Any) -> tuple[Path, dict[str, Any]]:
    (folder / "model.json").write_text(json.dumps(content))
    out = folder / f"out{len(list(folder.iterdir()))}"
    out.mkdir()
    return out, BoostedTrees().import_model(folder, out).config


def _imports_or_refuses(folder: Path, content: Any) -> None:
    try:
        out, config = _import(folder, content)
    except (Corrupt, InvalidInput):
        return
    assert np.isfinite(margins(out, config, np.zeros((1, 4), np.float32))).all()


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def _places(content: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to everything in a file."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    found = []
    for key, inner in items:
        found.append((*before, key))
        if isinstance(inner, dict | list):
            found += _places(inner, (*before, key))
    return found


_WHOLE = json.dumps(a_file())


@settings(max_examples=100, deadline=None)
@given(place=st.sampled_from(_places(json.loads(_WHOLE))), odd=_json)
def test_anything_in_an_xgboost_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[Any, ...], odd: object
) -> None:
    content = inner = json.loads(_WHOLE)
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = odd
    _imports_or_refuses(tmp_path_factory.mktemp("file"), content)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"objective": {"name": "reg:squarederror"}}, "objective"),
        ({"gradient_booster": {"name": "dart", "gbtree": {}}}, "booster"),
        ({"feature_names": []}, "feature_names"),
    ],
)
def test_other_models_of_xgboost_are_refused_with_a_way_out(
    tmp_path: Path, change: dict[str, Any], field: str
) -> None:
    content = json.loads(_WHOLE)
    content["learner"] |= change
    with pytest.raises(InvalidInput) as refused:
        _import(tmp_path, content)
    assert refused.value.field == field
    assert refused.value.fix


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"classes": ["a"]}, "model.config.classes"),
        ({"classes": ["a", "a"]}, "model.config"),
        ({"classes": ["a", "b"], "depth": 9}, "model.config.depth"),
        ({"classes": ["a", "b"], "most_trees": 10**6}, "model.config.most_trees"),
        ({"classes": ["a", "b"], "hidden": [3]}, "model.config.hidden"),
    ],
)
def test_bad_configurations_are_refused_by_field(config: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        BoostedTrees().estimate(config)
    assert refused.value.field == field


def test_an_estimate_is_of_the_largest_model(tmp_path: Path) -> None:
    config = {"classes": ["a", "b"], "depth": 3, "most_trees": 400}
    full = TreesState(columns=("x",), trees=Ensemble.empty(3, 400), standard=None)
    parts.write(full, tmp_path)
    written = (tmp_path / parts.TREES).stat().st_size
    assert written == pytest.approx(BoostedTrees().estimate(config).size_bytes, rel=0.05)
    assert len(state(tmp_path, config).trees) == 400


def counted(folder: Path, seed: int) -> bool:
    """Whether the leaves of a first tree tell how many records of a class come there."""
    features, labels = whole_numbers(seed, 200, 2)
    features = np.nan_to_num(features, nan=5.0)
    config = {"classes": ["0", "1"], "depth": 1, "rounds": 1}
    folder.mkdir()
    fresh, out = initialise(folder / "fresh", config), folder / "out"
    visit(fresh, config, write(folder / "data.csv", features, labels), out, 200, seed=seed)
    tree = state(out, config).trees
    left = features[:, tree.column[0, 0]] < tree.threshold[0, 0]
    told = []
    for side, leaf in zip((left, ~left), tree.leaf[0].astype(float), strict=True):
        records = int(side.sum())
        # A leaf is 0.3 G / (H + 1), of records of which each is thought as likely as not.
        told.append(round(records / 2 + leaf / 0.3 * (records / 4 + 1)))
    return told == [int(labels[left].sum()), int(labels[~left].sum())]


def test_leaves_do_not_count_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sum(counted(tmp_path / f"now-{seed}", seed) for seed in range(20)) <= 1
    monkeypatch.setattr(training, "_NOISE", 0.0)
    monkeypatch.setattr(training, "_ROUNDING", 0.0)
    assert sum(counted(tmp_path / f"exact-{seed}", seed) for seed in range(20)) == 20


@pytest.mark.processes
async def test_forked_workers_grow_the_same_trees_and_start_no_thread(tmp_path: Path) -> None:
    """A worker imports xgboost ahead for visits that are copies of it, so that may start none."""
    data = write(tmp_path / "data.csv", *whole_numbers(1, 100, 2))
    config = {"classes": ["0", "1"]}
    fresh = initialise(tmp_path / "fresh", config)
    trainer = Trainer(threads=2)
    await trainer.start()
    worker = psutil.Process(trainer.pid).children()[-1]
    before = worker.num_threads()
    try:
        for number in range(3):
            (out := tmp_path / f"{number}").mkdir()
            await trainer.train(
                "boosted-trees", fresh, config, data, 100, 1, out, lambda progress: None
            )
            assert worker.num_threads() <= before
    finally:
        await trainer.close()
    made = {(tmp_path / f"{number}" / parts.TREES).read_bytes() for number in range(3)}
    assert len(made) == 1
