"""DP-SGD of the recipes: what is clipped, what is drawn, and that the noise is as stated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch.nn import functional

from daitn.learning.causal_lm import CausalLm, models
from daitn.learning.causal_lm import private_training as causal_private
from daitn.learning.causal_lm.settings import CausalLmConfig
from daitn.learning.classifier import Classifier, private_training
from daitn.learning.classifier.network import forward
from daitn.learning.corpora.records import read_pairs
from daitn.learning.dp_sgd import drawn, noisy_mean
from daitn.learning.recipe import DataFault, DpSgd, Fault, Progress
from daitn.learning.weight_noise import normal

TERMS = DpSgd(secret=b"secret", rate=0.25, steps=20, noise=1.0, clip=1.0, lot=50.0)
TABLE: dict[str, object] = {
    "classes": ["a", "b"], "hidden": [8], "learning_rate": 0.01, "ranges": {"*": [-1, 1]}
}  # fmt: skip
TEXTS: dict[str, object] = {"width": 16, "layers": 1, "heads": 2, "vocabulary": 300}


class Kept:
    """Savepoints in memory, of which one is kept after `at` steps."""

    def __init__(self, at: int) -> None:
        self.at, self.states = at, list[bytes]()

    def latest(self) -> bytes | None:
        return self.states[-1] if self.states else None

    def due(self) -> bool:
        self.at -= 1
        return self.at == 0

    def keep(self, state: bytes) -> None:
        self.states.append(state)


def table(path: Path, rows: int = 200) -> Path:
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (rows, 2))
    lines = [f"{x:.4f},{y:.4f},{'ab'[int(x > y)]}" for x, y in points]
    path.write_text("x,y,label\n" + "\n".join(lines) + "\n")
    return path


def texts(path: Path) -> Path:
    from daitn.learning.corpora.records import QaPair

    pairs = [
        QaPair(question=f"what is {n} and {n}", answer=f"it is the number {2 * n} of course",
               label="sum", topic=f"sums of {n % 3}")
        for n in range(24)
    ]  # fmt: skip
    path.write_bytes(b"".join(msgspec.json.encode(pair) + b"\n" for pair in pairs))
    return path


def trained(recipe: Any, config: dict[str, object], data: Path, folder: Path, **more: Any) -> Any:
    model, out = folder / "model", folder / more.pop("out", "out")
    if not model.is_dir():
        model.mkdir()
        recipe.initialise(config, 1, model)
    out.mkdir()
    told = list[Progress]()
    watch: Callable[[Progress], None] = more.pop("watch", told.append)
    result = recipe.train(model, config, data, 1000, 7, out, watch)
    return result, told, {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.parametrize("clip", [0.05, 1e3])
def test_a_classifiers_gradients_are_clipped_record_by_record(clip: float) -> None:
    """The oracle goes through the records one by one."""
    torch.manual_seed(0)
    layers = [
        (torch.randn(6, 4, requires_grad=True), torch.randn(6, requires_grad=True)),
        (torch.randn(3, 6, requires_grad=True), torch.randn(3, requires_grad=True)),
    ]
    weights = [weight for layer in layers for weight in layer]
    inputs, targets = torch.randn(9, 4), torch.randint(0, 3, (9,))
    inputs[2] = torch.nan  # Adds nothing.
    expected = [torch.zeros_like(weight) for weight in weights]
    for row in [0, 1, *range(3, 9)]:
        loss = functional.cross_entropy(forward(inputs[row : row + 1], layers), targets[[row]])
        own = torch.autograd.grad(loss, weights)
        norm = float(torch.cat([each.flatten() for each in own]).norm())
        for total, each in zip(expected, own, strict=True):
            total += each * min(1.0, clip / norm)
    for ours, theirs in zip(
        private_training.clipped_sums(inputs, targets, layers, clip), expected, strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    nobody = private_training.clipped_sums(inputs[:0], targets[:0], layers, clip)
    assert not any(bool(each.any()) for each in nobody)


def test_a_model_made_so_that_squares_vanish_is_clipped_as_any_other() -> None:
    """Of gradients below 1e-23 the squares are zero in 32 bits, and a large activation makes a step
    of them all the same: the norm that was clipped was zero, and the sum was of a record."""
    layers = [
        (torch.tensor([[1e18]], requires_grad=True), torch.zeros(1, requires_grad=True)),
        (torch.tensor([[0.0], [-53e-18]], requires_grad=True), torch.zeros(2, requires_grad=True)),
    ]
    clip = 1e-6
    sums = private_training.clipped_sums(torch.ones(1, 1), torch.tensor([0]), layers, clip)
    norm = float(torch.cat([each.double().flatten() for each in sums]).norm())
    assert 0.0 < norm <= clip * 1.001


def test_a_language_models_gradients_are_clipped_record_by_record(tmp_path: Path) -> None:
    """One record more or less moves the sum by no more than the norm."""
    settings = CausalLmConfig.of(TEXTS)
    (tmp_path / "model").mkdir()
    CausalLm().initialise(TEXTS, 1, tmp_path / "model")
    model = models.load(tmp_path / "model", settings)
    weights = list(model.network.trainable().values())
    pairs = [(pair, n % 2 == 0) for n, pair in enumerate(read_pairs(texts(tmp_path / "texts")))]
    codec = model.codec(settings)

    def sums(records: Any, clip: float) -> torch.Tensor:
        found = causal_private.clipped_sums(model.network, weights, codec, records, clip)
        return torch.cat([each.flatten() for each in found])

    alone = [float(sums([pair], 1e9).norm()) for pair in pairs[:4]]
    clip = sorted(alone)[1]
    whole = sums(pairs[:4], clip)
    parts = [sums([pair], clip) for pair in pairs[:4]]
    torch.testing.assert_close(whole, torch.stack(parts).sum(0))
    for part, norm in zip(parts, alone, strict=True):
        assert float(part.norm()) == pytest.approx(min(norm, clip), rel=1e-4)


def test_records_are_drawn_each_by_itself_with_the_stated_rate() -> None:
    terms = msgspec.structs.replace(TERMS, rate=0.1)
    counts = np.zeros(500)
    sizes = []
    for step in range(400):
        rows = drawn(terms, step, 500)
        counts[rows] += 1
        sizes.append(len(rows))
    # Of a shuffled batch the sizes would be equal; a binomial's variance is 45.
    assert np.mean(sizes) == pytest.approx(50, abs=1.5)
    assert np.var(sizes) == pytest.approx(45, rel=0.25)
    assert np.var(counts) == pytest.approx(400 * 0.09, rel=0.25)
    # A record more changes nothing for the others.
    assert list(drawn(terms, 3, 501)[: len(drawn(terms, 3, 500))]) == list(drawn(terms, 3, 500))
    assert len(drawn(msgspec.structs.replace(terms, rate=1.0), 0, 500)) == 500


def test_the_noise_is_as_wide_as_the_terms_say_and_never_the_same() -> None:
    terms = msgspec.structs.replace(TERMS, noise=3.0, clip=0.5)
    sums = [torch.zeros(100, 200), torch.zeros(20_000)]
    first, second = noisy_mean(sums, terms, 0), noisy_mean(sums, terms, 1)
    drawn_by = torch.stack([each.flatten() for each in (*first, *second)])
    deviation = drawn_by.std(dim=1)
    torch.testing.assert_close(deviation, torch.full((4,), 3.0 * 0.5 / 50), rtol=0.03, atol=0.0)
    assert float(torch.corrcoef(drawn_by).triu(1).abs().max()) < 0.03
    torch.testing.assert_close(noisy_mean(sums, terms, 0)[1], first[1], rtol=0, atol=0)
    other = noisy_mean(sums, msgspec.structs.replace(terms, secret=b"other"), 0)
    assert float(torch.corrcoef(torch.stack([other[1], first[1]]))[0, 1]) < 0.03


def test_noise_reaches_as_far_as_a_small_delta_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where noise ends, whatever is further out was moved there by a record."""

    class Zeros:
        def __init__(self, key: bytes) -> None: ...

        def digest(self, size: int) -> bytes:
            return bytes(size)

    monkeypatch.setattr("daitn.learning.weight_noise.hashlib.shake_256", Zeros)
    assert normal(b"key", 2).max() > 9.4


@pytest.mark.parametrize("kind", ["table", "texts"])
def test_a_private_visit_tells_no_loss_and_goes_on_as_it_would_have(
    kind: str, tmp_path: Path
) -> None:
    recipe: Any = Classifier() if kind == "table" else CausalLm()
    config = TABLE if kind == "table" else TEXTS
    data = (table if kind == "table" else texts)(tmp_path / "data")
    terms = msgspec.structs.replace(TERMS, steps=6, lot=50.0 if kind == "table" else 6.0)
    private = recipe.privately(terms)
    result, told, whole = trained(private, config, data, tmp_path)
    assert result.examples == terms.examples == told[-1].examples
    assert all((each.loss, each.sensitivity) == (0.0, 0.0) for each in told)

    class Ended(Exception): ...

    def end(progress: Progress) -> None:
        if kept.states:
            raise Ended

    kept = Kept(at=3)
    resumed = private.resuming(kept)
    with pytest.raises(Ended):
        trained(resumed, config, data, tmp_path, out="ended", watch=end)
    _, _, again = trained(resumed, config, data, tmp_path, out="again")
    assert again == whole
    other = recipe.privately(msgspec.structs.replace(terms, secret=b"other"))
    assert trained(other, config, data, tmp_path, out="other")[2] != whole


def test_a_private_classifier_takes_its_scale_from_no_record(tmp_path: Path) -> None:
    """A record that is never drawn leaves no trace at all."""
    terms = msgspec.structs.replace(TERMS, rate=0.01)
    rows = 200
    once = {row for step in range(terms.steps) for row in drawn(terms, step, rows)}
    never = next(row for row in range(rows) if row not in once)
    recipe = Classifier().privately(terms)
    _, _, before = trained(recipe, TABLE, table(tmp_path / "data"), tmp_path)
    lines = (tmp_path / "data").read_text().splitlines()
    lines[never + 1] = "777.0,-999.0,b"
    (tmp_path / "data").write_text("\n".join(lines) + "\n")
    assert trained(recipe, TABLE, tmp_path / "data", tmp_path, out="after")[2] == before


def test_a_column_without_a_range_is_named_to_the_log_alone(tmp_path: Path) -> None:
    config = TABLE | {"ranges": {"x": [-1, 1]}}
    with pytest.raises(DataFault) as raised:
        trained(Classifier().privately(TERMS), config, table(tmp_path / "data"), tmp_path)
    assert raised.value.fault is Fault.OTHER_COLUMNS
    assert raised.value.field == "model.config.ranges"


def test_a_private_classifier_learns(tmp_path: Path) -> None:
    terms = msgspec.structs.replace(TERMS, steps=60, noise=1.0)
    data = table(tmp_path / "data")
    trained(Classifier().privately(terms), TABLE, data, tmp_path)
    measured = Classifier().evaluate(tmp_path / "out", TABLE, data, "accuracy")
    assert measured.value > 0.85
