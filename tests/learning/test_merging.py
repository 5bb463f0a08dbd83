"""What recipes make of models that learned apart from one another."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from tests.scenes.tiny_llama import write_folder

from daitn.learning.causal_lm import CausalLm
from daitn.learning.causal_lm import models as language_models
from daitn.learning.causal_lm.settings import CausalLmConfig
from daitn.learning.classifier import Classifier, parts
from daitn.learning.classifier.config import parse_config
from daitn.learning.classifier.network import forward, scaled
from daitn.learning.corpora.clinic import clinic
from daitn.learning.corpora.records import write_records
from daitn.learning.recipe import MergeTask, Merging
from daitn.objects.errors import Corrupt
from daitn.objects.merging import MergeRule, OuterStep, Reduces

DIGITS = {"classes": [str(digit) for digit in range(10)], "hidden": [32], "learning_rate": 0.01}


pytestmark = pytest.mark.usefixtures("one_thread")


def table(
    path: Path, features: NDArray[Any], labels: Sequence[object], names: Sequence[str]
) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*names, "label"])
        writer.writerows([*row, label] for row, label in zip(features, labels, strict=True))
    return path


def digits(folder: Path, sites: int) -> tuple[list[Path], Path, list[str]]:
    """Sites that each hold a few digits, and a test set of all."""
    features, labels = load_digits(return_X_y=True)
    names = [f"p{column}" for column in range(64)]
    order = np.random.default_rng(0).permutation(len(labels))
    features, labels = features[order], labels[order]
    test = table(folder / "test.csv", features[:500], labels[:500], names)
    features, labels = features[500:], labels[500:]
    found = []
    for site in range(sites):
        mine = labels * sites // 10 == site
        found.append(table(folder / f"{site}.csv", features[mine], labels[mine], names))
    return found, test, names


def fresh(folder: Path, config: dict[str, object]) -> Path:
    folder.mkdir()
    Classifier().initialise(config, 3, folder)
    return folder


def trained(base: Path, config: dict[str, object], data: Path, examples: int, out: Path) -> Path:
    out.mkdir()
    Classifier().train(base, config, data, examples, 1, out, lambda progress: None)
    return out


def merged(
    base: Path, models: Sequence[Path], config: dict[str, object], out: Path, **more: Any
) -> Path:
    out.mkdir()
    merge = MergeTask(
        base=str(base),
        models=tuple(map(str, models)),
        shares=more.pop("shares", (1.0,) * len(models)),
        single=more.pop("single", ()),
        rule=MergeRule(**more),
        seed=0,
    )
    recipe = Classifier()
    assert isinstance(recipe, Merging)
    recipe.merge(merge, config, out, out.parent / f"{out.name}-moments")
    return out


def scores(model: Path, config: dict[str, object], features: NDArray[Any]) -> torch.Tensor:
    state = parts.read(model, parse_config(config))
    assert state.standard is not None
    return forward(scaled(features.astype(np.float32), state.standard), state.layers)


def test_rounds_of_merging_teach_what_no_site_can(tmp_path: Path) -> None:
    sites, test, _ = digits(tmp_path, 5)
    model = fresh(tmp_path / "fresh", DIGITS)
    for number in range(6):
        visits = [
            trained(model, DIGITS, site, 480, tmp_path / f"{number}-{k}")
            for k, site in enumerate(sites)
        ]
        model = merged(model, visits, DIGITS, tmp_path / f"{number}", shares=(480.0,) * 5)
    accuracy = Classifier().evaluate(model, DIGITS, test, "accuracy").value
    alone = Classifier().evaluate(visits[0], DIGITS, test, "accuracy").value
    assert accuracy > 0.85 > 0.6 > alone


def test_merging_a_model_with_itself_keeps_its_scores(tmp_path: Path) -> None:
    sites, _, _ = digits(tmp_path, 2)
    base = fresh(tmp_path / "fresh", DIGITS)
    one = trained(base, DIGITS, sites[0], 300, tmp_path / "one")
    same = merged(base, [one, one], DIGITS, tmp_path / "same")
    features = load_digits().data[:200]
    torch.testing.assert_close(
        scores(same, DIGITS, features), scores(one, DIGITS, features), rtol=1e-4, atol=1e-4
    )


def test_the_merged_scale_is_that_of_all_examples(tmp_path: Path) -> None:
    sites, _, _ = digits(tmp_path, 2)
    base = trained(fresh(tmp_path / "fresh", DIGITS), DIGITS, sites[0], 200, tmp_path / "base")
    models = [
        trained(base, DIGITS, site, n, tmp_path / f"m{n}")
        for site, n in zip(sites, (100, 300), strict=True)
    ]
    made = merged(base, models, DIGITS, tmp_path / "out", shares=(100.0, 300.0))
    out = parts.read(made, parse_config(DIGITS)).standard
    one = trained(models[0], DIGITS, sites[1], 300, tmp_path / "both")
    after = parts.read(one, parse_config(DIGITS)).standard
    assert out is not None
    assert after is not None
    torch.testing.assert_close(out.count, after.count, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(out.mean, after.mean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(out.var, after.var, rtol=1e-2, atol=1e-2)


def test_a_stated_scale_stays_through_rounds(tmp_path: Path) -> None:
    sites, test, _ = digits(tmp_path, 3)
    config = {**DIGITS, "ranges": {"*": [0.0, 16.0]}}
    model, values, scales = fresh(tmp_path / "fresh", config), [], []
    for number in range(3):
        made = [
            trained(model, config, site, 900, tmp_path / f"{number}-{place}")
            for place, site in enumerate(sites)
        ]
        model = merged(model, made, config, tmp_path / f"round-{number}")
        values.append(Classifier().evaluate(model, config, test, "accuracy").value)
        scales.append(parts.read(model, parse_config(config)).standard)
    assert min(values[1:]) > 0.6
    for scale in scales:
        assert scale is not None
        assert bool((scale.mean == 8.0).all())
        assert bool((scale.count > 0.0).all())


def test_columns_are_merged_by_their_names(tmp_path: Path) -> None:
    features, labels = load_digits(return_X_y=True)
    names = [f"p{column}" for column in range(64)]
    turned = np.arange(64)[::-1]
    usual = table(tmp_path / "usual.csv", features, labels, names)
    other = table(tmp_path / "other.csv", features[:, turned], labels, [names[k] for k in turned])
    base = fresh(tmp_path / "fresh", DIGITS)
    one = trained(base, DIGITS, usual, 400, tmp_path / "one")
    two = trained(base, DIGITS, other, 400, tmp_path / "two")
    only_two = merged(base, [one, two], DIGITS, tmp_path / "out", shares=(1e-9, 1.0))
    torch.testing.assert_close(
        scores(only_two, DIGITS, features[:100]),
        scores(two, DIGITS, features[:100][:, turned]),
        rtol=1e-3,
        atol=1e-3,
    )


@pytest.mark.parametrize("turned", [False, True])
def test_models_with_pasts_of_their_own_are_averaged_by_what_each_learned(
    tmp_path: Path, turned: bool
) -> None:
    """Of columns that one of them never saw, the other one's scale counts; names decide which they
    are, as each has the order of its first site."""
    features, labels = load_digits(return_X_y=True)
    features = features.astype(object)
    names = [f"p{column}" for column in range(64)]
    order = np.arange(64)[::-1] if turned else np.arange(64)
    blank = features[:600].copy()
    blank[:, 5] = ""
    usual = table(tmp_path / "usual.csv", blank, labels[:600], names)
    other = table(
        tmp_path / "other.csv", features[600:, order], labels[600:], [names[k] for k in order]
    )
    base = fresh(tmp_path / "fresh", DIGITS)
    one = trained(base, DIGITS, usual, 300, tmp_path / "one")
    two = trained(base, DIGITS, other, 900, tmp_path / "two")
    met = merged(
        one, [one, two], DIGITS, tmp_path / "out", shares=(1.0, 3.0), reduction=Reduces.MEETING
    )
    a, b, c = (parts.read(model, parse_config(DIGITS)) for model in (one, two, met))
    b = parts.arranged(b, a.columns)
    for mine, theirs, ours in zip(a.layers, b.layers, c.layers, strict=True):
        for x, y, z in zip(mine, theirs, ours, strict=True):
            torch.testing.assert_close(z, 0.25 * x + 0.75 * y)
    assert a.standard is not None
    assert b.standard is not None
    assert c.standard is not None
    share = torch.where(a.standard.count > 0.0, 0.25, 0.0)
    mean = share * a.standard.mean + (1.0 - share) * b.standard.mean
    spread = share * (a.standard.var + (a.standard.mean - mean) ** 2)
    spread += (1.0 - share) * (b.standard.var + (b.standard.mean - mean) ** 2)
    torch.testing.assert_close(c.standard.mean, mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(c.standard.var, spread, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(c.standard.count, torch.maximum(a.standard.count, b.standard.count))
    again = merged(
        met, [met, met], DIGITS, tmp_path / "again", shares=(1.0, 1.0), reduction=Reduces.MEETING
    )
    same = parts.read(again, parse_config(DIGITS)).standard
    assert same is not None
    torch.testing.assert_close(same.count, c.standard.count)
    torch.testing.assert_close(same.var, c.standard.var)


def test_a_liar_in_the_scale_or_the_weights_is_outvoted(tmp_path: Path) -> None:
    sites, test, _ = digits(tmp_path, 1)
    base = fresh(tmp_path / "fresh", DIGITS)
    models = [trained(base, DIGITS, sites[0], 600 + k, tmp_path / f"m{k}") for k in range(3)]
    lies = load_file(models[2] / "weights.safetensors")
    lies["standard.mean"] += 1e6
    lies["layers.0.weight"] *= -50.0
    save_file(lies, models[2] / "weights.safetensors")
    fooled = merged(base, models, DIGITS, tmp_path / "mean")
    robust = merged(
        base, models, DIGITS, tmp_path / "median", reduction=Reduces.MEDIAN, tolerates=1
    )
    value = [Classifier().evaluate(m, DIGITS, test, "accuracy").value for m in (fooled, robust)]
    assert value[1] > 0.8 > 0.4 > value[0]


def test_models_that_do_not_fit_are_named(tmp_path: Path) -> None:
    sites, _, names = digits(tmp_path, 2)
    base = fresh(tmp_path / "fresh", DIGITS)
    good = trained(base, DIGITS, sites[0], 50, tmp_path / "good")
    features, labels = load_digits(return_X_y=True)
    odd = table(tmp_path / "odd.csv", features, labels, [f"q{name}" for name in names])
    other = trained(base, DIGITS, odd, 50, tmp_path / "other")
    for number, models in ((1, [good, other]), (0, [base, good])):
        out = tmp_path / f"out{number}"
        with pytest.raises(Corrupt) as refused:
            merged(base, models, DIGITS, out)
        assert refused.value.field == f"models[{number}]"
        shutil.rmtree(out)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    folder, out = tmp_path_factory.mktemp("llama"), tmp_path_factory.mktemp("parts")
    write_folder(folder)
    return out, dict(CausalLm().import_model(folder, out).config)


def test_adapters_are_merged_and_their_base_stays(
    tmp_path: Path, imported: tuple[Path, dict[str, object]]
) -> None:
    base, config = imported
    corpus = clinic()
    models = []
    for k, site in enumerate(("cdc", "ghr")):
        data = tmp_path / f"{site}.jsonl"
        write_records(data, corpus[site][:40])
        out = tmp_path / site
        out.mkdir()
        done = CausalLm().train(base, config, data, 20 * (k + 1), k, out, lambda progress: None)
        for part in done.carried:
            (out / part).symlink_to(base / part)
        models.append(out)
    settings = CausalLmConfig.of(config)
    for outer in (OuterStep.PLAIN, OuterStep.MOMENTUM):
        out, moments = tmp_path / f"out-{outer}", tmp_path / f"moments-{outer}"
        out.mkdir()
        merge = MergeTask(
            base=str(base),
            models=tuple(map(str, models)),
            shares=(20.0, 40.0),
            rule=MergeRule(outer=outer, rate=1.0),
            seed=0,
        )
        carried = CausalLm().merge(merge, config, out, moments)
        assert moments.is_file() == (outer is not OuterStep.PLAIN)
        assert [path.name for path in out.iterdir()] == ["adapter.safetensors"]
        assert set(carried) >= {"base.safetensors", "tokenizer.json"}
        for part in carried:
            (out / part).symlink_to(base / part)
        assert language_models.load(out, settings).seen == 60
    means = load_file(tmp_path / "out-plain" / "adapter.safetensors")
    one, two = (load_file(model / "adapter.safetensors") for model in models)
    for name, tensor in means.items():
        torch.testing.assert_close(tensor, (one[name] + 2 * two[name]) / 3, rtol=1e-4, atol=1e-5)


def test_language_models_with_different_vocabularies_are_not_merged(tmp_path: Path) -> None:
    config: dict[str, object] = {"layers": 1, "width": 16, "heads": 2, "vocabulary": 400}
    base = tmp_path / "fresh"
    base.mkdir()
    CausalLm().initialise(config, 0, base)
    corpus, models = clinic(), []
    for site in ("cdc", "ghr"):
        data = tmp_path / f"{site}.jsonl"
        write_records(data, corpus[site][:60])
        (out := tmp_path / site).mkdir()
        CausalLm().train(base, config, data, 16, 0, out, lambda progress: None)
        models.append(str(out))
    (out := tmp_path / "out").mkdir()
    merge = MergeTask(
        base=str(base), models=tuple(models), shares=(1.0, 1.0), rule=MergeRule(), seed=0
    )
    with pytest.raises(Corrupt) as refused:
        CausalLm().merge(merge, config, out, tmp_path / "moments")
    assert refused.value.field == "models[0]"
    assert not CausalLm().estimate(config).merges_fresh


def test_a_site_that_shouts_is_held_back_and_named(tmp_path: Path) -> None:
    """By the recipe, where the round says so: it is merged as it is otherwise."""
    sites, _, _ = digits(tmp_path, 1)
    base = fresh(tmp_path / "fresh", DIGITS)
    models = [trained(base, DIGITS, sites[0], 60 + k, tmp_path / f"m{k}") for k in range(4)]
    shouted = load_file(models[2] / "weights.safetensors")
    shouted["layers.0.weight"] *= 50.0
    save_file(shouted, models[2] / "weights.safetensors")
    task = MergeTask(
        base=str(base),
        models=tuple(map(str, models)),
        shares=(1.0,) * 4,
        rule=MergeRule(),
        seed=0,
        single=(0, 1, 2, 3),
    )
    (tmp_path / "screened").mkdir()
    with pytest.raises(Corrupt, match="times as long") as error:
        Classifier().merge(task, DIGITS, tmp_path / "screened", tmp_path / "moments")
    assert error.value.field == "models[2]"
    merged(base, models, DIGITS, tmp_path / "plain")


def lying(model: Path, **values: float) -> None:
    """Make a model state another scale of its columns."""
    weights = load_file(model / "weights.safetensors")
    weights.update(
        {f"standard.{k}": torch.full_like(weights[f"standard.{k}"], v) for k, v in values.items()}
    )
    save_file(weights, model / "weights.safetensors")


@pytest.mark.parametrize(
    "lie",
    [
        {"mean": 50.0, "count": 1e9},
        {"mean": 3e38, "count": 1e300},
        {"var": 3e38, "count": 1e9},
        {"mean": -1e6, "var": 1e12},
    ],
)
@pytest.mark.parametrize(("liar", "single"), [(0, ()), (5, ()), (5, (5,)), (0, (0, 1))])
def test_one_of_ten_moves_the_scale_of_columns_only_so_far(
    tmp_path: Path, lie: dict[str, float], liar: int, single: tuple[int, ...]
) -> None:
    """`single`: the sites among groups' means, if there are any."""
    rng = np.random.default_rng(1)
    config = {"classes": ["0", "1"], "hidden": [8], "learning_rate": 0.05}
    features = rng.normal(size=(1300, 2)) * [1.0, 100.0]
    labels = (features[:, 0] > 0.0).astype(int)
    base = fresh(tmp_path / "fresh", config)
    models = []
    for site in range(10):
        mine = slice(100 * site, 100 * site + 100)
        data = table(tmp_path / f"{site}.csv", features[mine], labels[mine].tolist(), ["a", "b"])
        models.append(trained(base, config, data, 400, tmp_path / f"m{site}"))
    lying(models[liar], **lie)
    out = merged(base, models, config, tmp_path / "out", shares=(400.0,) * 10, single=single)
    scale = parts.read(out, parse_config(config)).standard
    assert scale is not None
    assert float((scale.mean / torch.tensor([1.0, 100.0])).abs().max()) < 0.8
    assert 0.5 < float((scale.var.sqrt() / torch.tensor([1.0, 100.0])).max()) < 2.0
    test = table(tmp_path / "test.csv", features[1000:], labels[1000:].tolist(), ["a", "b"])
    assert Classifier().evaluate(out, config, test, "accuracy").value > 0.85


def test_a_model_with_a_part_that_none_has_is_named(tmp_path: Path) -> None:
    sites, _, _ = digits(tmp_path, 1)
    base = fresh(tmp_path / "fresh", DIGITS)
    models = [trained(base, DIGITS, sites[0], 50 + k, tmp_path / f"m{k}") for k in range(3)]
    (models[1] / "evil.bin").write_bytes(b"x")
    with pytest.raises(Corrupt, match=r"evil\.bin") as refused:
        merged(base, models, DIGITS, tmp_path / "out")
    assert refused.value.field == "models[1]"
