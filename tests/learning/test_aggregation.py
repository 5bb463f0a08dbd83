"""MergeRule models: each rule beside a plain oracle, and what liars can do."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from daitn.learning.aggregation.merging import TensorFile, merge_tensors
from daitn.objects.errors import Corrupt, InvalidInput
from daitn.objects.merging import MergeRule, OuterStep, Reduces, discount

SHAPES: dict[str, tuple[int, ...]] = {
    "layers.0.weight": (3, 4),
    "layers.0.bias": (3,),
    "scale": (1,),
    "gain": (),
}


def models_of(seed: int, count: int) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    generator = torch.Generator().manual_seed(seed)

    def one() -> dict[str, Tensor]:
        return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}

    return one(), [one() for _ in range(count)]


def merge(
    base: dict[str, Tensor],
    models: list[dict[str, Tensor]],
    rule: MergeRule,
    shares: list[float] | None = None,
    moments: dict[str, Tensor] | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return merge_tensors(
        base, models, shares or [1.0] * len(models), rule, seed=1, moments=moments or {}
    )


def flat(model: dict[str, Tensor]) -> np.ndarray:
    return np.concatenate([model[name].double().numpy().ravel() for name in sorted(model)])


def plain_krum(updates: np.ndarray, among: list[int], liars: int) -> list[int]:
    """The article's scores, by loops; the distance to all decides between equals."""

    def apart(one: int, others: Iterable[int]) -> list[float]:
        return sorted(float(((updates[one] - updates[k]) ** 2).sum()) for k in others if k != one)

    nearest = max(1, len(among) - liars - 2)
    return sorted(
        among, key=lambda k: (sum(apart(k, among)[:nearest]), sum(apart(k, range(len(updates)))))
    )


@given(seed=st.integers(0, 10**6), count=st.integers(1, 7))
@settings(max_examples=25, deadline=None)
def test_the_mean_is_that_of_the_models_by_their_examples(seed: int, count: int) -> None:
    base, models = models_of(seed, count)
    shares = [float(k + 1) for k in range(count)]
    merged, moments = merge(base, models, MergeRule(), shares)
    expected = np.average([flat(one) for one in models], axis=0, weights=shares)
    np.testing.assert_allclose(flat(merged), expected, atol=1e-5)
    assert not moments


@given(seed=st.integers(0, 10**6), count=st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_an_update_is_from_where_its_model_started_and_counts_by_its_scale(
    seed: int, count: int
) -> None:
    base, others = models_of(seed, 2 * count)
    models, starts = others[:count], others[count:]
    shares = [float(k + 1) for k in range(count)]
    scales = [discount(k) for k in range(count)]
    merged, _ = merge_tensors(
        base, models, shares, MergeRule(), seed=1, moments={}, starts=starts, scales=scales
    )
    updates = [
        scale * (flat(one) - flat(start))
        for one, start, scale in zip(models, starts, scales, strict=True)
    ]
    expected = flat(base) + np.average(updates, axis=0, weights=shares)
    np.testing.assert_allclose(flat(merged), expected, atol=1e-5)


@given(seed=st.integers(0, 10**6), liars=st.integers(0, 2))
@settings(max_examples=25, deadline=None)
def test_robust_reductions_are_those_of_the_articles(seed: int, liars: int) -> None:
    count = 4 * liars + 3
    base, models = models_of(seed, count)
    stacked = np.array([flat(one) for one in models])
    updates = stacked - flat(base)

    def by(reduction: Reduces) -> np.ndarray:
        return flat(merge(base, models, MergeRule(reduction=reduction, tolerates=liars))[0])

    np.testing.assert_allclose(by(Reduces.MEDIAN), np.median(stacked, axis=0), atol=1e-5)
    ordered = np.sort(stacked, axis=0)[liars : count - liars]
    np.testing.assert_allclose(by(Reduces.TRIMMED_MEAN), ordered.mean(axis=0), atol=1e-5)
    kept = plain_krum(updates, list(range(count)), liars)[: count - liars]
    np.testing.assert_allclose(by(Reduces.KRUM), stacked[kept].mean(axis=0), atol=1e-5)
    left, chosen = list(range(count)), list[int]()
    while len(chosen) < count - 2 * liars:
        best, *left = plain_krum(updates, left, liars)
        chosen.append(best)
    columns = []
    for column in updates[chosen].T:
        near = sorted(column, key=lambda value: abs(value - np.median(column)))
        columns.append(np.mean(near[: len(chosen) - 2 * liars]))
    np.testing.assert_allclose(by(Reduces.BULYAN), flat(base) + columns, atol=1e-5)


@pytest.mark.parametrize(
    "reduction", [Reduces.MEDIAN, Reduces.TRIMMED_MEAN, Reduces.KRUM, Reduces.BULYAN]
)
@pytest.mark.parametrize("lie", [1e6, -1e3, 50.0])
def test_two_liars_among_eleven_move_no_robust_reduction_far(
    reduction: Reduces, lie: float
) -> None:
    base, models = models_of(3, 11)
    honest = flat(merge(base, models, MergeRule(reduction=reduction, tolerates=2))[0])
    for liar in (2, 7):
        models[liar] = {name: tensor + lie for name, tensor in models[liar].items()}
    fooled = flat(merge(base, models, MergeRule(reduction=reduction, tolerates=2))[0])
    assert np.abs(fooled - honest).max() < 3.0
    assert np.abs(flat(merge(base, models, MergeRule())[0]) - honest).max() > 5.0


@given(seed=st.integers(0, 10**6), order=st.permutations(range(7)))
@settings(max_examples=15, deadline=None)
@pytest.mark.parametrize("reduction", [r for r in Reduces if r is not Reduces.DARE])
def test_the_order_in_which_models_arrive_does_not_matter(
    reduction: Reduces, seed: int, order: list[int]
) -> None:
    base, models = models_of(seed, 7)
    shares = [float(k + 1) for k in range(7)]
    merging = MergeRule(reduction=reduction, tolerates=int(reduction in _ROBUST))
    one = merge(base, models, merging, shares)[0]
    other = merge(base, [models[k] for k in order], merging, [shares[k] for k in order])[0]
    np.testing.assert_allclose(flat(one), flat(other), atol=1e-5)


_ROBUST = (Reduces.MEDIAN, Reduces.TRIMMED_MEAN, Reduces.KRUM, Reduces.BULYAN)


def test_equal_models_stay_as_they_are_whatever_the_reduction() -> None:
    base, (model,) = models_of(5, 1)
    for reduction in (Reduces.MEAN, *_ROBUST):
        merging = MergeRule(reduction=reduction, tolerates=int(reduction in _ROBUST))
        merged, _ = merge(base, [model] * 7, merging)
        np.testing.assert_allclose(flat(merged), flat(model), atol=1e-6)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_adaptive_outer_steps_follow_the_article_over_rounds(seed: int) -> None:
    rate, first, second, least = 0.1, 0.9, 0.99, 1e-3
    for outer in (OuterStep.ADAM, OuterStep.YOGI):
        merging = MergeRule(outer=outer, rate=rate, momentum=first, second_momentum=second)
        model, _ = models_of(seed, 0)
        moments: dict[str, Tensor] = {}
        x, m, v = flat(model), 0.0, 0.0
        for number in range(4):
            _, locals_ = models_of(seed + number + 1, 3)
            delta = np.mean([flat(one) for one in locals_], axis=0) - x
            m = first * m + (1 - first) * delta
            if outer is OuterStep.ADAM:
                v = second * v + (1 - second) * delta**2
            else:
                v = v - (1 - second) * delta**2 * np.sign(v - delta**2)
            x = x + rate * m / (np.sqrt(v) + least)
            model, moments = merge(model, locals_, merging, moments=moments)
            np.testing.assert_allclose(flat(model), x, rtol=1e-4, atol=1e-4)


def test_nesterovs_outer_step_is_that_of_torch() -> None:
    rate, momentum = 0.7, 0.9
    model, _ = models_of(0, 0)
    weights = {name: tensor.clone().requires_grad_() for name, tensor in model.items()}
    optimiser = torch.optim.SGD(weights.values(), lr=rate, momentum=momentum, nesterov=True)
    merging = MergeRule(outer=OuterStep.MOMENTUM, rate=rate, momentum=momentum)
    moments: dict[str, Tensor] = {}
    for number in range(4):
        _, locals_ = models_of(number + 1, 3)
        for name, weight in weights.items():
            mean = torch.stack([one[name] for one in locals_]).mean(dim=0)
            weight.grad = weight.detach() - mean
        optimiser.step()
        model, moments = merge(model, locals_, merging, moments=moments)
        for name, weight in weights.items():
            torch.testing.assert_close(model[name], weight.detach(), rtol=1e-4, atol=1e-4)


def test_ties_resolves_signs_as_the_article_does() -> None:
    base = {"w": torch.zeros(4)}
    updates = [[4.0, 0.1, -3.0, 2.0], [6.0, 5.0, 1.0, -0.1], [-1.0, 0.2, -4.0, 3.0]]
    models = [{"w": torch.tensor(one)} for one in updates]
    merged, _ = merge(base, models, MergeRule(reduction=Reduces.TIES, density=0.5))
    # Of each, the two largest: (4, -3), (6, 5), (-4, 3); elected signs are +, +, -, +.
    torch.testing.assert_close(merged["w"], torch.tensor([5.0, 5.0, -3.5, 3.0]))


def test_dare_keeps_the_mean_on_average_and_is_drawn_by_its_seed() -> None:
    base = {"w": torch.zeros(20_000)}
    models = [{"w": torch.full((20_000,), 1.0)}, {"w": torch.full((20_000,), 3.0)}]
    merging = MergeRule(reduction=Reduces.DARE, density=0.25)
    one, _ = merge(base, models, merging)
    again, _ = merge(base, models, merging)
    other, _ = merge_tensors(base, models, [1.0, 1.0], merging, seed=2, moments={})
    assert torch.equal(one["w"], again["w"])
    assert not torch.equal(one["w"], other["w"])
    assert float(one["w"].mean()) == pytest.approx(2.0, abs=0.1)
    assert float((one["w"] == 0).float().mean()) == pytest.approx(0.75**2, abs=0.02)


@pytest.mark.parametrize(
    ("reduction", "liars", "count"),
    [
        (Reduces.MEAN, 1, 10),
        (Reduces.TIES, 1, 10),
        (Reduces.MEDIAN, 2, 4),
        (Reduces.TRIMMED_MEAN, 2, 4),
        (Reduces.KRUM, 2, 6),
        (Reduces.BULYAN, 2, 10),
    ],
)
def test_too_few_models_to_tolerate_liars_are_refused(
    reduction: Reduces, liars: int, count: int
) -> None:
    base, models = models_of(0, count)
    with pytest.raises(InvalidInput) as refused:
        merge(base, models, MergeRule(reduction=reduction, tolerates=liars))
    assert refused.value.field == "training.merging.tolerates"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_model_with_values_that_are_not_finite_is_named(bad: float) -> None:
    base, models = models_of(0, 3)
    models[1]["scale"] = torch.tensor([bad])
    with pytest.raises(Corrupt) as refused:
        merge(base, models, MergeRule())
    assert refused.value.field == "models[1]"


def test_a_model_with_other_tensors_or_shapes_is_named() -> None:
    base, models = models_of(0, 3)
    for change in ({"more": torch.zeros(1)}, {"scale": torch.zeros(2)}):
        odd = [*models[:2], {**models[2], **change}]
        with pytest.raises(Corrupt) as refused:
            merge(base, odd, MergeRule())
        assert refused.value.field == "models[2]"


def test_moments_of_another_outer_step_or_model_are_refused() -> None:
    base, models = models_of(0, 3)
    _, moments = merge(base, models, MergeRule(outer=OuterStep.MOMENTUM))
    with pytest.raises(InvalidInput):
        merge(base, models, MergeRule(outer=OuterStep.ADAM), moments=moments)
    moments["momentum.scale"] = torch.zeros(2)
    with pytest.raises(InvalidInput):
        merge(base, models, MergeRule(outer=OuterStep.MOMENTUM), moments=moments)


def test_weights_keep_their_number_type_and_are_read_from_files(tmp_path: Path) -> None:
    base, models = models_of(0, 2)
    for name, model in zip("abc", (base, *models), strict=True):
        model["half"] = torch.randn(5).to(torch.bfloat16)
        save_file(model, tmp_path / name)
    files = [TensorFile(tmp_path / name) for name in "abc"]
    merged, _ = merge_tensors(files[0], files[1:], [1.0, 1.0], MergeRule(), seed=0, moments={})
    in_memory, _ = merge(base, models, MergeRule())
    assert merged["half"].dtype is torch.bfloat16
    assert all(torch.equal(merged[name], in_memory[name]) for name in base)


@pytest.mark.parametrize("reduction", [one for one in Reduces if one is not Reduces.DARE])
def test_pieces_of_tensors_are_merged_as_the_whole(
    reduction: Reduces, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, models = models_of(4, 7)
    rule = MergeRule(reduction=reduction, outer=OuterStep.ADAM)
    whole = merge(base, models, rule)
    monkeypatch.setattr("daitn.learning.aggregation.merging._AT_ONCE", 1)
    pieces = merge(base, models, rule)
    for one, other in zip(whole, pieces, strict=True):
        np.testing.assert_allclose(flat(one), flat(other), atol=1e-6)


def test_a_merge_that_leaves_its_number_type_is_refused() -> None:
    base = {"half": torch.full((3,), 6e4, dtype=torch.float16)}
    models = [{"half": torch.full((3,), 6.5e4, dtype=torch.float16)}]
    with pytest.raises(InvalidInput, match="not finite"):
        merge(base, models, MergeRule(rate=5.0))


def test_a_mean_of_means_by_size_is_the_mean() -> None:
    """What a tree of aggregators relies on."""
    base, models = models_of(9, 6)
    sizes = [float(k + 1) for k in range(6)]
    halves = [
        merge(base, [models[k] for k in part], MergeRule(), [sizes[k] for k in part])[0]
        for part in ((0, 1), (2, 3, 4, 5))
    ]
    whole, _ = merge(base, models, MergeRule(), sizes)
    both, _ = merge(base, halves, MergeRule(), [3.0, 18.0])
    np.testing.assert_allclose(flat(both), flat(whole), atol=1e-5)
    assert len(set(itertools.chain(base, whole))) == len(SHAPES)


def updated(base: dict[str, Tensor], towards: dict[str, Tensor], by: float) -> dict[str, Tensor]:
    return {name: base[name] + by * towards[name] for name in base}


def alike(count: int) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """A base, and models that went nearly the same way from it."""
    generator = torch.Generator().manual_seed(5)
    base, way, *others = ({"w": torch.randn(20, 20, generator=generator)} for _ in range(count + 2))
    return base, [updated(updated(base, way, 1.0), other, 0.4) for other in others]


def screened(
    base: dict[str, Tensor],
    models: list[dict[str, Tensor]],
    shares: list[float] | None = None,
    *,
    like_data: bool = True,
    rule: MergeRule | None = None,
    single: Sequence[int] | None = None,
) -> dict[str, Tensor]:
    """`like_data`: whether all sites publish about the same labels; `single`: which are no groups'
    means, all by default."""
    merged, _ = merge_tensors(
        base,
        models,
        shares or [1.0] * len(models),
        rule or MergeRule(),
        seed=1,
        moments={},
        single=range(len(models)) if single is None else single,
        alike=[like_data] * len(models),
    )
    return merged


@pytest.mark.parametrize(
    ("lie", "why"),
    [(20.0, "times as long as the median one"), (-1.0, "points away from the median")],
)
def test_an_update_unlike_all_others_is_held_back_and_named(lie: float, why: str) -> None:
    base, models = alike(5)
    honest = [*models]
    moved = {name: models[2][name] - base[name] for name in base}
    models[2] = updated(base, moved, lie)
    with pytest.raises(Corrupt, match=why) as error:
        screened(base, models)
    assert error.value.field == "models[2]"
    del models[2]
    merged = screened(base, models)
    others = [flat(one) for k, one in enumerate(honest) if k != 2]
    np.testing.assert_allclose(flat(merged), np.mean(others, axis=0), atol=1e-5)


def test_a_site_with_many_more_records_may_go_further() -> None:
    base, models = alike(5)
    moved = {name: models[2][name] - base[name] for name in base}
    models[2] = updated(base, moved, 8.0)
    screened(base, models, [1.0, 1.0, 10.0, 1.0, 1.0])
    with pytest.raises(Corrupt, match="times as long"):
        screened(base, models, [1.0, 1.0, 2.0, 1.0, 1.0])


@given(seed=st.integers(0, 10**6), count=st.integers(4, 9))
@settings(max_examples=25, deadline=None)
def test_updates_that_have_nothing_in_common_are_all_merged(seed: int, count: int) -> None:
    """As those of sites with one class each."""
    base, models = models_of(seed, count)
    screened(base, models)


@pytest.mark.parametrize("lie", [-1.0, 4.5])
def test_who_has_other_data_may_differ_but_moves_a_mean_only_so_far(lie: float) -> None:
    """Unlikeness alone is no verdict: it may be a specialist, or a newcomer."""
    base, models = alike(5)
    others = [flat(one) for k, one in enumerate(models) if k != 2]
    moved = {name: models[2][name] - base[name] for name in base}
    models[2] = updated(base, moved, lie)
    merged = screened(base, models, like_data=False)
    usual = float(np.median([np.linalg.norm(one - flat(base)) for one in others]))
    apart = np.linalg.norm(flat(merged) - np.mean(others, axis=0))
    assert apart <= (3.1 + 1.2) * usual / 5


@pytest.mark.parametrize("count", [3, 5])
@pytest.mark.parametrize("single", [(2,), (1, 2), (0, 1, 2)])
def test_a_site_beside_groups_moves_a_mean_only_so_far(count: int, single: tuple[int, ...]) -> None:
    base, models = alike(count)
    others = [flat(one) for k, one in enumerate(models) if k != 2]
    moved = {name: models[2][name] - base[name] for name in base}
    models[2] = updated(base, moved, 4.5)
    merged = screened(base, models, like_data=False, single=single)
    usual = float(np.median([np.linalg.norm(one - flat(base)) for one in others]))
    apart = np.linalg.norm(flat(merged) - np.mean(others, axis=0))
    assert apart <= (3.1 + 1.2) * usual / count


def test_sites_of_like_data_are_compared_however_many_groups_are_beside() -> None:
    base, models = alike(15)
    moved = {name: models[2][name] - base[name] for name in base}
    models[2] = updated(base, moved, -2.0)
    with pytest.raises(Corrupt, match="points away") as refused:
        screened(base, models, single=range(7))
    assert refused.value.field == "models[2]"
    models[2], models[9] = models[9], models[2]
    screened(base, models, single=range(7))


def test_what_groups_made_is_not_bounded() -> None:
    base, models = alike(5)
    moved = {name: models[2][name] - base[name] for name in base}
    models[2] = updated(base, moved, 4.5)
    shares = [1.0, 1.0, 50.0, 1.0, 1.0]
    merged = screened(base, models, shares, single=(0, 1))
    expected = sum(n * flat(one) for n, one in zip(shares, models, strict=True)) / sum(shares)
    np.testing.assert_allclose(flat(merged), expected, atol=1e-4)


def test_a_site_that_says_it_has_many_records_counts_for_little_more() -> None:
    base, models = alike(10)
    apart = [
        np.linalg.norm(
            flat(screened(base, models, [1e12, *[1.0] * 9], like_data=like)) - flat(models[0])
        )
        for like in (True, False)
    ]
    alone = np.linalg.norm(flat(screened(base, models)) - flat(models[0]))
    assert min(apart) > 0.7 * alone


@pytest.mark.parametrize("value", [1e30, 3e38])
@pytest.mark.parametrize(("count", "liars"), [(2, 1), (3, 1), (4, 2), (6, 3)])
@pytest.mark.parametrize(
    "rule",
    [
        MergeRule(),
        MergeRule(outer=OuterStep.MOMENTUM),
        MergeRule(outer=OuterStep.ADAM),
        MergeRule(reduction=Reduces.TIES),
        MergeRule(reduction=Reduces.DARE),
        MergeRule(reduction=Reduces.MEDIAN),
    ],
)
def test_weights_that_leave_the_range_of_numbers_name_their_model(
    rule: MergeRule, count: int, liars: int, value: float
) -> None:
    base, models = alike(count)
    for liar in range(liars):
        sign = -1.0 if liar % 2 else 1.0
        models[liar] = {name: torch.full_like(one, sign * value) for name, one in base.items()}
    for _ in range(liars):
        with pytest.raises(Corrupt) as error:
            screened(base, models, rule=rule, like_data=False)
        number = int(error.value.field.removeprefix("models[").removesuffix("]"))
        assert float(models.pop(number)["w"].abs().max()) == pytest.approx(value)
    assert bool(screened(base, models, rule=rule)["w"].isfinite().all())


@pytest.mark.parametrize("reduction", [Reduces.MEAN, Reduces.TIES, Reduces.DARE])
def test_no_rule_takes_an_update_longer_than_the_model(reduction: Reduces) -> None:
    base, models = alike(3)
    moved = {name: models[1][name] - base[name] for name in base}
    models[1] = updated(base, moved, 8.0)
    with pytest.raises(Corrupt, match="longer than all weights") as error:
        screened(base, models, like_data=False, rule=MergeRule(reduction=reduction))
    assert error.value.field == "models[1]"
