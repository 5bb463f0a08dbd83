import csv
import json
import math
import struct
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_breast_cancer, load_digits

from daitn.learning.answering.protocol import Message, Question
from daitn.learning.classifier import Classifier
from daitn.learning.classifier import parts as classifier_parts
from daitn.learning.classifier.parts import Standard
from daitn.learning.classifier.scale import merged
from daitn.learning.recipe import (
    DataFault,
    Fault,
    LabelMeasured,
    Measured,
    Progress,
    Selection,
    Trained,
)
from daitn.objects.errors import Corrupt, InvalidInput, NotFound
from daitn.objects.model_needs import MOST_COLUMNS, ColumnsNeeded

TWO = {"classes": ["no", "yes"], "hidden": [8], "learning_rate": 0.05}


pytestmark = pytest.mark.usefixtures("one_thread")


def write_csv(path: Path, header: list[str], rows: list[list[object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def separable(path: Path, rows: int = 60, seed: int = 0) -> Path:
    """Two classes that differ in `age`, beside a column that says nothing."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, rows)
    age = 40.0 + 20.0 * labels + rng.normal(0, 2, rows)
    noise = rng.normal(0, 1, rows)
    return write_csv(
        path,
        ["age", "noise", "label"],
        [[age[i], noise[i], ("no", "yes")[labels[i]]] for i in range(rows)],
    )


def without(data: Path, out: Path, rows: Callable[[int], bool], empty: str = "") -> Path:
    """The same table with no `age` in these rows."""
    header, *records = csv.reader(data.open())
    for number, record in enumerate(records):
        if rows(number):
            record[0] = empty
    return write_csv(out, header, [[*record] for record in records])


def initialise(folder: Path, config: dict[str, Any], seed: int = 0) -> Path:
    folder.mkdir()
    Classifier().initialise(config, seed, folder)
    return folder


def visit(
    model: Path,
    config: dict[str, Any],
    data: Path,
    out: Path,
    examples: int = 600,
    seed: int = 0,
    watch: Callable[[Progress], None] = lambda _: None,
) -> Trained:
    out.mkdir()
    return Classifier().train(model, config, data, examples, seed, out, watch)


def accuracy(model: Path, config: dict[str, Any], test: Path) -> Measured:
    return Classifier().evaluate(model, config, test, "accuracy")


def parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Sites:
    """A data set of scikit-learn's, split over three sites of unlike label shares, and a test."""

    def __init__(
        self, folder: Path, loaded: Any, shares: Callable[[int], list[float]], seed: int
    ) -> None:
        rng = np.random.default_rng(seed)
        self.header = [str(name).replace(" ", "_") for name in loaded.feature_names]
        order = rng.permutation(len(loaded.target))
        held_out = len(order) // 4
        homes: dict[str, list[int]] = {"a": [], "b": [], "c": []}
        for row in order[held_out:]:
            homes[rng.choice(list(homes), p=shares(int(loaded.target[row])))].append(int(row))
        self.test = self._write(folder / "test.csv", loaded, order[:held_out])
        self.data = [
            self._write(folder / f"{home}.csv", loaded, np.array(rows))
            for home, rows in homes.items()
        ]

    def _write(self, path: Path, loaded: Any, rows: NDArray[np.int64]) -> Path:
        table = [[*map(float, loaded.data[row]), f"c{loaded.target[row]}"] for row in rows]
        return write_csv(path, [*self.header, "label"], table)


def tour(folder: Path, config: dict[str, Any], sites: Sites, examples: int, rounds: int) -> Path:
    """Visit the sites one after the other, `rounds` times."""
    model = initialise(folder / "fresh", config)
    for number, data in enumerate(sites.data * rounds):
        out = folder / f"visit-{number}"
        visit(model, config, data, out, examples, seed=number)
        model = out
    return model


def test_visits_to_three_hospitals_of_unlike_patients_teach_a_diagnosis(tmp_path: Path) -> None:
    by_class = {0: [0.1, 0.3, 0.6], 1: [0.6, 0.3, 0.1]}
    sites = Sites(tmp_path, load_breast_cancer(), by_class.__getitem__, seed=0)
    config = {"classes": ["c0", "c1"], "hidden": [32], "learning_rate": 3e-3, "features": 30}
    profiles = [Classifier().inspect(data) for data in sites.data]
    yes = [profile.labels["c1"] / profile.samples for profile in profiles]
    assert max(yes) - min(yes) > 0.5, "the split is not the one that this test is about"
    model = tour(tmp_path, config, sites, examples=1000, rounds=2)
    measured = accuracy(model, config, sites.test)
    assert measured.value >= 0.93
    assert measured.items == 142
    assert set(measured.by_label) == {"c0", "c1"}
    before = accuracy(tmp_path / "visit-0", config, sites.test)
    assert measured.value > before.value, "one site alone does not teach as much"


def test_visits_teach_handwritten_digits_from_pixels(tmp_path: Path) -> None:
    def mostly_at_one_site(digit: int) -> list[float]:
        return [0.8 if site == digit % 3 else 0.1 for site in range(3)]

    sites = Sites(tmp_path, load_digits(), mostly_at_one_site, seed=1)
    config = {"classes": [f"c{digit}" for digit in range(10)], "learning_rate": 3e-3}
    model = tour(tmp_path, config, sites, examples=2000, rounds=2)
    assert accuracy(model, config, sites.test).value >= 0.85


def test_the_same_arguments_give_the_same_model_and_another_seed_another(tmp_path: Path) -> None:
    data = separable(tmp_path / "data.csv")
    outs = []
    for number, seed in enumerate([5, 5, 6]):
        model = initialise(tmp_path / f"fresh-{number}", TWO, seed)
        outs.append(tmp_path / f"out-{number}")
        visit(model, TWO, data, outs[-1], seed=seed)
    assert parts(outs[0]) == parts(outs[1])
    assert parts(outs[0]) != parts(outs[2])


def test_the_seed_of_a_visit_counts_too(tmp_path: Path) -> None:
    data = separable(tmp_path / "data.csv")
    model = initialise(tmp_path / "fresh", TWO)
    for seed in (1, 2):
        visit(model, TWO, data, tmp_path / f"out-{seed}", examples=20, seed=seed)
    assert parts(tmp_path / "out-1") != parts(tmp_path / "out-2")


def test_a_proximal_pull_keeps_a_visit_near_the_model_that_came(tmp_path: Path) -> None:
    data = separable(tmp_path / "data.csv")
    moved = []
    for proximal in (0.0, 1.0):
        config = TWO | {"features": 2, "proximal": proximal}
        model = initialise(tmp_path / f"fresh-{proximal}", config)
        visit(model, config, data, tmp_path / f"out-{proximal}")
        before = load_file(model / "weights.safetensors")
        after = load_file(tmp_path / f"out-{proximal}" / "weights.safetensors")
        moved.append(sum(float((after[name] - before[name]).norm()) for name in before))
    assert moved[1] < 0.5 * moved[0]


def test_a_visit_leaves_the_model_that_it_started_from_as_it_is(tmp_path: Path) -> None:
    model = initialise(tmp_path / "fresh", TWO | {"features": 2})
    before = parts(model)
    visit(model, TWO | {"features": 2}, separable(tmp_path / "data.csv"), tmp_path / "out")
    assert parts(model) == before
    assert set(before) == {"weights.safetensors", "features.json"}


def test_progress_counts_up_to_the_examples_asked_for(tmp_path: Path) -> None:
    seen: list[Progress] = []
    model = initialise(tmp_path / "fresh", TWO)
    data = separable(tmp_path / "data.csv")
    trained = visit(model, TWO, data, tmp_path / "out", examples=1001, watch=seen.append)
    counts = [progress.examples for progress in seen]
    assert counts == sorted(set(counts))
    assert counts[-1] == trained.examples == 1001
    assert 10 <= len(counts) <= 20
    assert seen[-1].loss < seen[0].loss


def test_the_scale_of_the_columns_is_learned_over_all_sites(tmp_path: Path) -> None:
    labels = ["no", "yes"] * 10
    here = write_csv(tmp_path / "here.csv", ["x", "label"], [*map(list, enumerate(labels))])
    there = write_csv(tmp_path / "there.csv", ["x", "label"], [*map(list, enumerate(labels, 50))])
    model = initialise(tmp_path / "fresh", TWO)
    visit(model, TWO, here, tmp_path / "one", examples=20)
    visit(tmp_path / "one", TWO, there, tmp_path / "two", examples=20)
    tensors = load_file(tmp_path / "two" / "weights.safetensors")
    both = np.array([*range(20), *range(50, 70)])
    assert float(tensors["standard.mean"]) == pytest.approx(both.mean(), abs=4.0)
    assert float(tensors["standard.var"]) == pytest.approx(both.var(), rel=0.1)
    assert float(tensors["standard.count"]) == 40


@pytest.mark.parametrize(
    ("empty", "remark"),
    [
        ("", "empty throughout"),
        ("nan", "empty throughout"),
        ("NaN", "empty throughout"),
        ("0", "the same value in every record"),
        ("-999", "the same value in every record"),
        ("50", "the same value in every record"),
    ],
)
def test_a_site_without_values_in_the_column_that_matters_does_no_harm(
    empty: str, remark: str, tmp_path: Path
) -> None:
    full = separable(tmp_path / "full.csv", rows=200)
    bare = without(full, tmp_path / "bare.csv", lambda row: True, empty)
    test = separable(tmp_path / "test.csv", rows=400, seed=9)
    model = initialise(tmp_path / "fresh", TWO)
    reached = []
    for number, data in enumerate([full, bare, bare, full]):
        visit(model, TWO, data, tmp_path / f"{number}", seed=number)
        model = tmp_path / f"{number}"
        reached.append(accuracy(model, TWO, test).value)
    assert min(reached) > 0.95
    assert accuracy(model, TWO, bare).value < 0.8, "no column tells the classes apart there"
    assert remark in " ".join(Classifier().inspect(bare).remarks)


def test_a_column_that_nobody_here_fills_keeps_its_weights_and_its_scale(tmp_path: Path) -> None:
    full = separable(tmp_path / "full.csv")
    bare = without(full, tmp_path / "bare.csv", lambda row: True)
    model = initialise(tmp_path / "fresh", TWO)
    visit(model, TWO, full, tmp_path / "one")
    visit(tmp_path / "one", TWO, bare, tmp_path / "two")
    one, two = (load_file(tmp_path / name / "weights.safetensors") for name in ("one", "two"))
    assert torch.equal(one["layers.0.weight"][:, 0], two["layers.0.weight"][:, 0])
    assert not torch.equal(one["layers.0.weight"][:, 1], two["layers.0.weight"][:, 1])
    for name in ("mean", "var", "count"):
        assert torch.equal(one[f"standard.{name}"][:1], two[f"standard.{name}"][:1])


def test_a_column_that_the_first_site_does_not_fill_is_scaled_by_the_first_that_does(
    tmp_path: Path,
) -> None:
    full = separable(tmp_path / "full.csv", rows=200)
    bare = without(full, tmp_path / "bare.csv", lambda row: True)
    model = initialise(tmp_path / "fresh", TWO)
    visit(model, TWO, bare, tmp_path / "one")
    unheard = accuracy(tmp_path / "one", TWO, full)
    assert unheard == accuracy(tmp_path / "one", TWO, bare), "nothing is known of its values"
    visit(tmp_path / "one", TWO, full, tmp_path / "two")
    alone = initialise(tmp_path / "fresh-2", TWO)
    visit(alone, TWO, full, tmp_path / "alone")
    both, one = (load_file(tmp_path / name / "weights.safetensors") for name in ("two", "alone"))
    assert torch.equal(both["standard.mean"][0], one["standard.mean"][0])
    assert torch.equal(both["standard.var"][0], one["standard.var"][0])
    assert accuracy(tmp_path / "two", TWO, full).value > 0.95


@given(
    sites=st.lists(
        st.lists(st.one_of(st.none(), st.integers(-1000, 1000)), min_size=1, max_size=12),
        min_size=1,
        max_size=4,
    )
)
def test_the_scale_of_a_column_is_that_of_all_values_there_are(
    sites: list[list[int | None]],
) -> None:
    """As many examples as records: the merged scale is that of one table of all of them."""
    standard = None
    for values in sites:
        column = np.array([math.nan if v is None else v for v in values])
        there_are = column[np.isfinite(column)].astype(np.float64)
        here = Standard(
            mean=torch.tensor([there_are.mean() if len(there_are) else 0.0]).float(),
            var=torch.tensor([there_are.var() if len(there_are) else 0.0]).float(),
            count=torch.tensor([float(len(there_are))]).double(),
        )
        standard = merged(standard, here)
    assert standard is not None
    there = np.array([v for values in sites for v in values if v is not None], np.float64)
    assert float(standard.count) == pytest.approx(len(there))
    if len(there):
        assert float(standard.mean) == pytest.approx(there.mean(), abs=1e-2)
        assert float(standard.var) == pytest.approx(there.var(), rel=1e-3, abs=1e-2)


def test_a_huge_value_at_one_site_leaves_a_model_that_others_can_read(tmp_path: Path) -> None:
    rows: list[list[object]] = [[1e30 if n == 3 else n, ("no", "yes")[n > 20]] for n in range(40)]
    data = write_csv(tmp_path / "d.csv", ["x", "label"], rows)
    visit(initialise(tmp_path / "fresh", TWO), TWO, data, tmp_path / "one")
    visit(tmp_path / "one", TWO, data, tmp_path / "two")
    assert 0.0 <= accuracy(tmp_path / "two", TWO, data).value <= 1.0


def test_a_model_of_one_count_for_all_columns_is_still_read(tmp_path: Path) -> None:
    data = separable(tmp_path / "data.csv")
    visit(initialise(tmp_path / "fresh", TWO), TWO, data, tmp_path / "out")
    now = accuracy(tmp_path / "out", TWO, data)
    tensors = load_file(tmp_path / "out" / "weights.safetensors")
    tensors["standard.count"] = tensors["standard.count"][:1].clone()
    save_file(tensors, tmp_path / "out" / "weights.safetensors")
    assert accuracy(tmp_path / "out", TWO, data) == now


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("ends", ["{}", " {} ", "\ufeff{}\u200b", "\xa0{}"])
def test_words_that_look_alike_are_the_same(
    form: Literal["NFC", "NFD"], ends: str, tmp_path: Path
) -> None:
    column, klass, label = ("größe_é", "Häufig", "Düngung")
    written = [unicodedata.normalize(form, ends.format(word)) for word in (column, klass, label)]
    here: list[list[object]] = [[n, klass if n > 20 else "selten"] for n in range(40)]
    there: list[list[object]] = [[n, written[1] if n > 20 else "selten"] for n in range(40)]
    one = write_csv(tmp_path / "one.csv", [column, label], here)
    two = write_csv(tmp_path / "two.csv", [written[0], written[2]], there)
    config = {"classes": ["selten", written[1]], "hidden": [8], "learning_rate": 0.05}
    model = initialise(tmp_path / "fresh", config)
    for number, (data, name) in enumerate([(one, written[2]), (two, label)]):
        recipe = Classifier().selecting(Selection(label=name))
        assert recipe.inspect(data).labels == {klass: 19, "selten": 21}
        assert recipe.inspect(data).columns == (column,)
        (tmp_path / f"{number}").mkdir()
        recipe.train(model, config, data, 600, 0, tmp_path / f"{number}", lambda _: None)
        model = tmp_path / f"{number}"
        measured = recipe.evaluate(model, config, data, "accuracy")
        assert set(measured.by_label) == {klass, "selten"}
    assert Classifier().estimate(config).labels == ("selten", klass)


def test_case_makes_another_word(tmp_path: Path) -> None:
    rows: list[list[object]] = [[1, "Ill"], [2, "ill"]]
    data = write_csv(tmp_path / "d.csv", ["x", "label"], rows)
    assert Classifier().inspect(data).labels == {"Ill": 1, "ill": 1}
    assert Classifier().estimate(TWO | {"classes": ["Ill", "ill"]}).labels == ("Ill", "ill")
    with pytest.raises(InvalidInput, match="named twice"):
        Classifier().estimate(TWO | {"classes": ["é", "e\u0301"]})


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("x,label\n1,no\n".encode("utf-16"), "UTF-16"),
        ("x,label\n1,no\n".encode("utf-16-le"), "NUL byte"),
        ("x,label\n1,größe\n".encode("latin-1"), "line 2 is not UTF-8"),
        (b"x,label\n1,\0no\n", "line 2 contains a NUL byte"),
        (bytes(range(256)) * 10, "is not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_text_says_what_it_is(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes(content)
    with pytest.raises(InvalidInput, match=told) as caught:
        Classifier().inspect(tmp_path / "d.csv")
    assert "UTF-8" in caught.value.fix


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_line_ends_blank_lines_and_marks_make_no_difference(ends: str, tmp_path: Path) -> None:
    lines = ["\ufeffx,label", "", "1,no", " ", "2,yes"]
    (tmp_path / "d.csv").write_bytes(ends.join(lines).encode())
    profile = Classifier().inspect(tmp_path / "d.csv")
    assert profile.labels == {"no": 1, "yes": 1}
    assert profile.columns == ("x",)


def test_columns_may_stand_in_another_order_at_another_site(tmp_path: Path) -> None:
    model = initialise(tmp_path / "fresh", TWO)
    visit(model, TWO, separable(tmp_path / "data.csv"), tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "data.csv").open()))
    turned: list[list[object]] = [[row["label"], row["noise"], row["age"]] for row in rows]
    other = write_csv(tmp_path / "other.csv", ["label", "noise", "age"], turned)
    same = accuracy(tmp_path / "out", TWO, tmp_path / "data.csv")
    assert accuracy(tmp_path / "out", TWO, other) == same
    assert same.value > 0.9


def test_other_columns_at_another_site_are_named(tmp_path: Path) -> None:
    model = initialise(tmp_path / "fresh", TWO)
    visit(model, TWO, separable(tmp_path / "data.csv"), tmp_path / "out")
    other = write_csv(
        tmp_path / "o.csv", ["age", "weight", "label"], [[x, 2, "no"] for x in range(10)]
    )
    with pytest.raises(InvalidInput, match="missing: noise; unexpected: weight"):
        visit(tmp_path / "out", TWO, other, tmp_path / "two")


def test_the_number_of_features_has_to_be_the_configured_one(tmp_path: Path) -> None:
    config = TWO | {"features": 3}
    model = initialise(tmp_path / "fresh", config)
    with pytest.raises(InvalidInput, match="takes 3 features, the data has 2: age, noise") as e:
        visit(model, config, separable(tmp_path / "data.csv"), tmp_path / "out")
    assert e.value.field == "model.config.features"


def test_a_label_that_is_no_class_is_named(tmp_path: Path) -> None:
    rows: list[list[object]] = [[x, ("no", "perhaps")[x % 2]] for x in range(20)]
    data = write_csv(tmp_path / "d.csv", ["x", "label"], rows)
    with pytest.raises(InvalidInput, match="perhaps") as caught:
        visit(initialise(tmp_path / "fresh", TWO), TWO, data, tmp_path / "out")
    assert caught.value.field == "model.config.classes"


def test_columns_without_any_value_do_not_lower_the_quality(tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    rows = [f"{n % 2},,{'' if n == 7 else n},{'ab'[n % 2]}" for n in range(60)]
    data.write_text("\n".join(["x,empty,y,label", *rows]))
    assert Classifier().inspect(data).quality == pytest.approx(59 / 60)
    data.write_text("\n".join(["empty,label", *(f",{'ab'[n % 2]}" for n in range(60))]))
    assert Classifier().inspect(data).quality == 0.0


def test_labels_that_are_one_number_are_remarked(tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    labels = ["0", "0.0", "1", "1e3", "no"]
    data.write_text("\n".join(["x,label", *(f"{n},{labels[n % 5]}" for n in range(100))]))
    (remark,) = [each for each in Classifier().inspect(data).remarks if "as numbers" in each]
    assert "0 and 0.0" in remark
    assert "1e3" not in remark


def test_missing_values_lower_the_quality_and_do_not_stop_training(tmp_path: Path) -> None:
    data = separable(tmp_path / "data.csv")
    lines = data.read_text().splitlines()
    lines[1] = "," + lines[1].split(",", 1)[1]
    lines[2] = "nan," + lines[2].split(",", 1)[1]
    data.write_text("\n".join(lines))
    profile = Classifier().inspect(data)
    assert profile.samples == 60
    assert profile.quality == pytest.approx(58 / 60)
    visit(initialise(tmp_path / "fresh", TWO), TWO, data, tmp_path / "out")
    assert accuracy(tmp_path / "out", TWO, data).value > 0.9


@pytest.mark.parametrize(
    ("text", "complaint", "field"),
    [
        ("", "line 1, field header: names fewer than two columns", "header"),
        ("x;label\n1;no\n", "line 1, field header: names fewer than two columns", "header"),
        ("x,x,label\n1,2,no\n", "column 1 is one of 2 of the same name", "x"),
        ("x,,label\n1,2,no\n", "column 2 has no name", "header"),
        ("x,label\n", "there are no records", "records"),
        ("x,label\n1,no\n1,2,no\n", "1 record that should have 2 cells, first in line 3", "record"),
        ("x,label\n1,no\nsecret,no\n", "column 1 has 1 cell that cannot be read as a number", "x"),
        (
            "x,label\n1,no\n20_1,no\n",
            "1 cell that cannot be read as a number, first in line 3",
            "x",
        ),
        ("x,label\nsecret,no\nhidden,no\n", "column 1 is text", "x"),
        ("x,label\n1e39,no\n", "cannot be held by a 32-bit float, first in line 2", "x"),
        ("x,label\n-Infinity,no\n", "cannot be held by a 32-bit float, first in line 2", "x"),
        ("x,label\n1,\n", "1 cell that should not be empty, first in line 2", "label"),
        ('x,label\n"1,no\n', "is not a CSV file", "data.csv"),
        ("label,y\n1,2\n".replace("y", "label"), "column 1 is one of 2", "label"),
    ],
)
def test_a_malformed_table_is_refused_by_place_and_column(
    text: str, complaint: str, field: str, tmp_path: Path
) -> None:
    (tmp_path / "data.csv").write_text(text)
    with pytest.raises(InvalidInput) as caught:
        Classifier().inspect(tmp_path / "data.csv")
    assert complaint in caught.value.problem
    assert field in caught.value.field
    assert "secret" not in str(caught.value)
    assert caught.value.fix


def test_all_that_is_wrong_with_a_table_is_told_at_once(tmp_path: Path) -> None:
    rows: list[list[object]] = [
        ["benign" if n % 2 else "malignant", f"P{n}", 0.5 * n, "dark, firm", "7"] for n in range(40)
    ]
    rows[3][4] = "n/a"
    rows[5] = rows[5][:4]
    data = write_csv(tmp_path / "d.csv", ["diagnosis", "patient", "size", "notes", "age"], rows)
    with pytest.raises(InvalidInput) as caught:
        Classifier().inspect(data)
    told = caught.value
    for problem in (
        "no column is called label",
        "columns 1, 2, 4 are text",
        "column 5 has 1 cell that cannot be read as a number, first in line 5",
        "1 record that should have 5 cells, first in line 7",
    ):
        assert problem in told.problem
    for word in ("diagnosis", "patient", "notes", "P1", "dark", "n/a"):
        assert word not in told.problem, "a problem is told outside, and tells of places only"
    assert "`label: its name`" in told.fix
    assert "of diagnosis, patient, notes" in told.fix
    del rows[5], rows[3]
    write_csv(data, ["diagnosis", "patient", "size", "notes", "age"], rows)
    told_to = Classifier().selecting(Selection(label="diagnosis", ignore=("patient", "notes")))
    profile = told_to.inspect(data)
    assert profile.labels == {"benign": 18, "malignant": 20}
    assert profile.columns == ("size", "age")
    only = Classifier().selecting(Selection(label="diagnosis", columns=("age", "size")))
    assert only.inspect(data).columns == ("size", "age")


@pytest.mark.parametrize(
    ("header", "selection", "hint"),
    [
        (["x", "Label"], Selection(), "perhaps Label"),
        (["x", "LABEL", "Label"], Selection(), "perhaps LABEL or Label"),
        (["x", "diagnosis"], Selection(label="Diagnosis"), "perhaps diagnosis"),
        (["x", "tumour type"], Selection(label="tumourtype"), "perhaps tumour type"),
        (["x", "y"], Selection(), "say which column holds the label"),
        (["x", "label"], Selection(ignore=("X",)), "perhaps x is meant"),
        (["x", "label"], Selection(columns=("z",)), "leave it out"),
        (["x", "label"], Selection(label="label", ignore=("label",)), "out of `ignore`"),
        (["x", "label"], Selection(ignore=("x",)), "offer at least one"),
    ],
)
def test_no_column_is_guessed(
    header: list[str], selection: Selection, hint: str, tmp_path: Path
) -> None:
    rows: list[list[object]] = [[n] * len(header) for n in range(20)]
    with pytest.raises(InvalidInput) as caught:
        Classifier().selecting(selection).inspect(write_csv(tmp_path / "d.csv", header, rows))
    assert hint in caught.value.fix


def test_the_owner_of_the_data_says_which_column_is_the_label(tmp_path: Path) -> None:
    rows: list[list[object]] = [[x, "yes" if x > 9 else "no", x % 3] for x in range(20)]
    data = write_csv(tmp_path / "d.csv", ["x", "ill", "ward"], rows)
    here = Classifier().selecting(Selection(label="ill"))
    model = initialise(tmp_path / "fresh", TWO)
    (tmp_path / "out").mkdir()
    here.train(model, TWO, data, 600, 0, tmp_path / "out", lambda _: None)
    assert here.evaluate(tmp_path / "out", TWO, data, "accuracy").value == 1.0
    with pytest.raises(InvalidInput, match="does not offer 'ward'") as caught:
        here.evaluate(tmp_path / "out", TWO | {"label": "ward"}, data, "accuracy")
    assert caught.value.field == "model.config.label"


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Classifier().inspect_test(tmp_path / "data.csv")


def test_a_column_with_a_value_per_record_is_no_label(tmp_path: Path) -> None:
    rows: list[list[object]] = [[1, f"patient-{number}"] for number in range(1001)]
    with pytest.raises(InvalidInput, match="1001 different labels"):
        Classifier().inspect(write_csv(tmp_path / "d.csv", ["x", "label"], rows))


def test_the_label_column_can_be_another(tmp_path: Path) -> None:
    config = TWO | {"label": "ill"}
    rows: list[list[object]] = [[x, "yes" if x > 9 else "no"] for x in range(20)]
    data = write_csv(tmp_path / "d.csv", ["x", "ill"], rows)
    model, out = initialise(tmp_path / "fresh", config), tmp_path / "out"
    out.mkdir()
    named = Classifier().selecting(Selection(label="ill"))
    named.train(model, config, data, 600, 0, out, lambda _: None)
    for asked in (config, TWO):
        assert named.evaluate(out, asked, data, "accuracy").value == 1.0
    with pytest.raises(InvalidInput, match="no column is called label"):
        accuracy(out, TWO, data)
    for naming in (Classifier(), Classifier().selecting(Selection(label="x"))):
        with pytest.raises(DataFault, match="does not offer 'ill' as the label"):
            naming.evaluate(out, config, data, "accuracy")


def test_the_scale_of_a_column_tells_nothing_of_few_records(tmp_path: Path) -> None:
    """The scaling travels exactly: one value, or how many records differ from all others."""
    rows: list[list[object]] = [
        [x, 48213.5 if x == 3 else "", int(x < 3), x % 2, ("no", "yes")[x % 2]] for x in range(200)
    ]
    names = ["age", "viral_load", "rare", "often", "label"]
    data = write_csv(tmp_path / "d.csv", names, rows)
    visit(initialise(tmp_path / "fresh", TWO), TWO, data, tmp_path / "out", examples=10)
    tensors = load_file(tmp_path / "out" / "weights.safetensors")
    assert tensors["standard.count"].tolist() == [10.0, 0.0, 0.0, 10.0]
    assert tensors["standard.mean"].tolist() == [96.0, 0.0, 0.0, 0.5]
    assert struct.pack("<f", 48213.5) not in (tmp_path / "out/weights.safetensors").read_bytes()


def test_the_two_accuracies_differ_where_classes_are_unlike_in_size(tmp_path: Path) -> None:
    rows: list[list[object]] = [[x, "no"] for x in range(90)]
    data = write_csv(tmp_path / "d.csv", ["x", "label"], rows)
    visit(initialise(tmp_path / "fresh", TWO), TWO, data, tmp_path / "out")
    rare: list[list[object]] = [[x, "yes"] for x in range(10)]
    test = write_csv(tmp_path / "t.csv", ["x", "label"], rows + rare)
    plain = accuracy(tmp_path / "out", TWO, test)
    balanced = Classifier().evaluate(tmp_path / "out", TWO, test, "balanced_accuracy")
    assert plain.value == pytest.approx(90 / 100)
    assert plain.standard_error == pytest.approx((90 * 10 / 100**3) ** 0.5)
    assert balanced.value == pytest.approx(0.5)
    assert balanced.standard_error == 0.0
    assert balanced.by_label == {
        "no": LabelMeasured(value=1.0, items=90),
        "yes": LabelMeasured(value=0.0, items=10),
    }
    assert balanced.over_labels
    assert not plain.over_labels


# --------------------------------------------------------------- what a site does not publish


def with_rare(path: Path, *rare: list[object]) -> Path:
    """Sixty records of two labels, and these."""
    rows: list[list[object]] = [[x, x % 5, ("no", "yes")[x % 2]] for x in range(60)]
    return write_csv(path, ["x", "y", "label"], [*rows[:30], *rare, *rows[30:]])


THREE = TWO | {"classes": ["no", "yes", "hiv"]}
FEW: list[list[object]] = [[100 + x, x, "hiv"] for x in range(9)]
SAME: list[list[object]] = [[100, 1, "hiv"]] * 50


@pytest.mark.parametrize("config", [TWO, THREE])
@pytest.mark.parametrize("rare", [FEW, SAME])
def test_whether_there_are_records_of_a_rare_label_shows_in_nothing(
    config: dict[str, Any], rare: list[list[object]], tmp_path: Path
) -> None:
    """A model that lists the label, and one that does not: as if those records were not there."""
    told = []
    for name, data in (
        ("without", with_rare(tmp_path / "without.csv")),
        ("with", with_rare(tmp_path / "with.csv", *rare)),
    ):
        fresh = initialise(tmp_path / f"{name}-fresh", config)
        visit(fresh, config, data, tmp_path / name)
        profile = Classifier().inspect(data)
        told.append((parts(tmp_path / name), accuracy(tmp_path / name, config, data)))
        assert (profile.samples, profile.quality) == (60, 1.0)
    assert told[0] == told[1]
    assert profile.labels["hiv"] == len(rare), "for its owner"
    assert profile.different["hiv"] == len(set(map(tuple, rare)))


def test_a_label_that_a_site_publishes_must_be_a_class(tmp_path: Path) -> None:
    enough: list[list[object]] = [*FEW, [200, 0, "hiv"]]
    data = with_rare(tmp_path / "d.csv", *enough)
    with pytest.raises(DataFault, match="not classes of the model: hiv"):
        visit(initialise(tmp_path / "fresh", TWO), TWO, data, tmp_path / "out")
    with pytest.raises(DataFault, match="not classes of the model: hiv"):
        accuracy(tmp_path / "fresh", TWO, data)


def test_a_table_of_rare_labels_alone_has_no_records(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "d.csv", ["x", "y", "label"], FEW)
    assert Classifier().inspect(data).samples == 0
    with pytest.raises(DataFault, match="10 different records") as caught:
        visit(initialise(tmp_path / "fresh", TWO), TWO, data, tmp_path / "out")
    assert caught.value.fault is Fault.NO_RECORDS


def test_the_scale_of_a_column_rests_on_different_records(tmp_path: Path) -> None:
    rows: list[list[object]] = [[x, "", ("no", "yes")[x % 2]] for x in range(60)]
    same: list[list[object]] = [[7, 48213.5, "yes"]] * 50
    data = write_csv(tmp_path / "d.csv", ["age", "viral_load", "label"], rows + same)
    visit(initialise(tmp_path / "fresh", TWO), TWO, data, tmp_path / "out", examples=10)
    tensors = load_file(tmp_path / "out" / "weights.safetensors")
    assert tensors["standard.mean"][1] == 0.0


def made_for(folder: Path, *, everybody: bool) -> Path:
    """A model whose scores overflow for records with a large `x`, or for all."""
    state = classifier_parts.State(
        seed=0,
        columns=("x", "y"),
        layers=[
            (torch.tensor([[3e38, 0.0]]), torch.tensor([0.0 if everybody else -3e38])),
            (torch.tensor([[3e38], [-3e38]]), torch.zeros(2)),
        ],
        standard=classifier_parts.Standard(
            mean=torch.tensor([-1000.0 if everybody else 0.0, 0.0]),
            var=torch.tensor([1.0 if everybody else 10000.0, 1.0]),
            count=torch.tensor([1e12, 1e12], dtype=torch.float64),
        ),
    )
    folder.mkdir()
    classifier_parts.write(state, folder)
    return folder


def test_a_model_made_for_it_does_not_fail_on_a_single_record(tmp_path: Path) -> None:
    config = TWO | {"hidden": [1]}
    model = made_for(tmp_path / "model", everybody=False)
    data = with_rare(tmp_path / "d.csv", [900, 0, "yes"])
    seen: list[Progress] = []
    visit(model, config, data, tmp_path / "out", watch=seen.append)
    for path in (tmp_path / "out", model):
        assert accuracy(path, config, data).items == 61
    assert all(
        bool(t.isfinite().all()) for t in load_file(tmp_path / "out/weights.safetensors").values()
    )
    assert all(0.0 <= step.loss <= math.log(2) + 1e-6 for step in seen)
    assert {step.sensitivity for step in seen} == {math.log(2) * 10}


def test_a_model_without_finite_losses_is_told(tmp_path: Path) -> None:
    config = TWO | {"hidden": [1]}
    model = made_for(tmp_path / "model", everybody=True)
    data = with_rare(tmp_path / "d.csv")
    with pytest.raises(DataFault) as caught:
        visit(model, config, data, tmp_path / "out")
    assert caught.value.fault is Fault.LOSS_NOT_FINITE
    with pytest.raises(DataFault) as caught:
        accuracy(model, config, data)
    assert caught.value.fault is Fault.SCORES_NOT_FINITE


def test_a_model_that_has_learned_nothing_can_be_measured(tmp_path: Path) -> None:
    test = separable(tmp_path / "test.csv")
    for number, config in enumerate([TWO, TWO | {"features": 2}]):
        measured = accuracy(initialise(tmp_path / f"{number}", config), config, test)
        assert 0.0 <= measured.value <= 1.0


def test_a_record_is_read_whole_or_refused(tmp_path: Path) -> None:
    visit(initialise(tmp_path / "new", TWO), TWO, separable(tmp_path / "a.csv"), tmp_path / "model")
    generator = Classifier().open(tmp_path / "model", TWO)

    def said(*turns: tuple[str, str]) -> str:
        messages = tuple(Message(role, text) for role, text in turns)
        question = Question(messages=messages, max_tokens=2, temperature=0.0, seed=0)
        (piece,) = generator.answer(question)
        assert piece is not None
        return piece.text

    assert said(("user", '{"age": 60, "noise": 0}')) == "yes"
    assert said(("user", '{"age": 40, "noise": null}')) == "no"
    for record, told in (
        ('{"age": 60}', "lacks noise"),
        ("{}", "lacks age, noise"),
        ('{"age": 60, "noise": 0, "mood": 1}', "no such columns: mood"),
        ("60 years", "JSON object"),
    ):
        with pytest.raises(InvalidInput, match=told):
            said(("user", record))
    with pytest.raises(InvalidInput, match="reads one message"):
        said(("system", "be kind"), ("user", '{"age": 60, "noise": 0}'))


def test_an_unknown_metric_is_refused(tmp_path: Path) -> None:
    test = separable(tmp_path / "test.csv")
    with pytest.raises(InvalidInput, match="accuracy, balanced_accuracy") as caught:
        Classifier().evaluate(initialise(tmp_path / "fresh", TWO), TWO, test, "f1")
    assert caught.value.field == "metric"


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({}, "model.config.classes"),
        ({"classes": ["a"]}, "model.config.classes"),
        ({"classes": ["a", 3]}, "model.config.classes[1]"),
        (TWO | {"hidden": [8, 0]}, "model.config.hidden[1]"),
        (TWO | {"hidden": [5000]}, "model.config.hidden[0]"),
        (TWO | {"learning_rate": 0}, "model.config.learning_rate"),
        (TWO | {"features": "some"}, "model.config.features"),
        (TWO | {"epochs": 3}, "model.config.epochs"),
    ],
)
def test_a_bad_configuration_is_refused_by_its_field(config: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Classifier().estimate(config)
    assert caught.value.field == field
    assert "learning_rate" in caught.value.fix


def test_the_estimate_says_which_labels_the_model_tells_apart() -> None:
    said = Classifier().estimate(TWO)
    assert list(said.labels) == TWO["classes"]
    assert said.labels_field == "model.config.classes"
    # Only data whose owner names this column can be used, and its labels are those of this column.
    assert Classifier().estimate(TWO | {"label": "diagnosis"}).labels == ("no", "yes")


def test_the_estimate_says_how_many_columns_the_model_reads() -> None:
    def said(**config: object) -> ColumnsNeeded:
        columns = Classifier().estimate(TWO | config).columns
        assert columns is not None
        return columns

    assert [columns for columns in range(1, 6) if said(features=3).fits(columns)] == [3]
    assert said(features=3).field == "model.config.features"
    assert said().fits(1)
    assert said().fits(MOST_COLUMNS)
    named = {"age": (0.0, 100.0), "size": (0.0, 2.0)}
    assert [columns for columns in range(1, 6) if said(ranges=named).fits(columns)] == [1, 2]
    assert said(ranges=named).field == "model.config.ranges"
    assert said(ranges=named | {"*": (0.0, 1.0)}).fits(5)
    assert said(ranges=named, features=2).fits(2)
    with pytest.raises(InvalidInput, match="2 for 3 features"):
        said(ranges=named, features=3)


def test_the_estimate_is_what_the_model_then_has(tmp_path: Path) -> None:
    config = TWO | {"features": 2, "hidden": [16, 8]}
    footprint = Classifier().estimate(config)
    tensors = load_file(initialise(tmp_path / "fresh", config) / "weights.safetensors")
    assert footprint.parameters == sum(tensor.numel() for tensor in tensors.values())
    assert footprint.size_bytes >= 4 * footprint.parameters
    assert footprint.flops_per_example == 6 * (2 * 16 + 16 * 8 + 8 * 2)


@given(columns=st.integers(1, 500), hidden=st.lists(st.integers(1, 300), max_size=3))
def test_a_wider_model_never_needs_less(columns: int, hidden: list[int]) -> None:
    narrow = Classifier().estimate(TWO | {"features": columns, "hidden": hidden})
    wide = Classifier().estimate(TWO | {"features": columns + 1, "hidden": hidden})
    assert wide.parameters > narrow.parameters
    assert wide.flops_per_example > narrow.flops_per_example
    assert wide.memory_bytes >= narrow.memory_bytes
    assert wide.size_bytes > narrow.size_bytes


class TestPartsFromTheNetwork:
    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        model = initialise(tmp_path / "fresh", TWO)
        visit(model, TWO, separable(tmp_path / "data.csv"), tmp_path / "out", examples=20)
        return tmp_path / "out"

    @pytest.mark.parametrize("name", ["weights.safetensors", "features.json"])
    def test_other_bytes_are_corrupt(self, name: str, model: Path, tmp_path: Path) -> None:
        (model / name).write_bytes(b"\x80\x04no pickle is ever read")
        with pytest.raises(Corrupt):
            accuracy(model, TWO, tmp_path / "data.csv")

    @pytest.mark.parametrize("name", ["weights.safetensors", "features.json"])
    def test_a_part_that_is_not_there_is_corrupt(
        self, name: str, model: Path, tmp_path: Path
    ) -> None:
        (model / name).unlink()
        with pytest.raises(Corrupt):
            accuracy(model, TWO, tmp_path / "data.csv")

    def test_weights_of_another_configuration_are_refused(
        self, model: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(Corrupt, match=r"layers\.0\.weight"):
            accuracy(model, TWO | {"hidden": [9]}, tmp_path / "data.csv")

    def test_weights_that_are_no_numbers_are_refused(self, model: Path, tmp_path: Path) -> None:
        tensors = load_file(model / "weights.safetensors")
        tensors["layers.0.bias"][0] = float("nan")
        save_file(tensors, model / "weights.safetensors")
        with pytest.raises(Corrupt, match="not finite"):
            accuracy(model, TWO, tmp_path / "data.csv")

    @pytest.mark.parametrize(
        ("name", "shape"), [("extra", (1,)), ("layers.9.bias", (2,)), ("standard.mean", (7,))]
    )
    def test_tensors_that_nobody_expects_are_refused(
        self, name: str, shape: tuple[int, ...], model: Path, tmp_path: Path
    ) -> None:
        tensors = load_file(model / "weights.safetensors")
        save_file(tensors | {name: torch.zeros(shape)}, model / "weights.safetensors")
        with pytest.raises(Corrupt, match=name):
            accuracy(model, TWO, tmp_path / "data.csv")

    def test_scores_that_are_not_finite_are_no_chance_result(
        self, model: Path, tmp_path: Path
    ) -> None:
        tensors = load_file(model / "weights.safetensors")
        tensors["layers.0.weight"][:] = 0.0
        tensors["layers.0.bias"][:] = 3e38
        tensors["layers.1.weight"][:] = 3e38
        save_file(tensors, model / "weights.safetensors")
        with pytest.raises(DataFault) as raised:
            accuracy(model, TWO, tmp_path / "data.csv")
        assert raised.value.fault is Fault.SCORES_NOT_FINITE

    def test_a_list_of_columns_without_end_is_refused(self, model: Path, tmp_path: Path) -> None:
        with (model / "features.json").open("wb") as file:
            file.truncate(17 << 20)
        with pytest.raises(Corrupt, match="bytes"):
            accuracy(model, TWO, tmp_path / "data.csv")

    def test_columns_that_the_weights_do_not_have_are_refused(
        self, model: Path, tmp_path: Path
    ) -> None:
        (model / "features.json").write_text(json.dumps({"seed": 0, "columns": ["age"]}))
        with pytest.raises(Corrupt):
            accuracy(model, TWO, tmp_path / "data.csv")
