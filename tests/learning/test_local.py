"""What algorithms do to the steps of a visit, against the articles in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from daitn.learning.local.companions import Companions
from daitn.learning.local.consolidation import importance_after, units
from daitn.learning.local.distillation import TEMPERATURE, distilled
from daitn.learning.local.steps import Steps
from daitn.learning.local.variates import mean_variate
from daitn.objects.merging import LocalRule

Numbers = NDArray[np.float64]
Gradient = Callable[[Numbers], Numbers]
SCAFFOLD = LocalRule(merged=True, variates=True)
RATE, STEPS, WIDTH = 0.05, 7, 4


def quadratics(sites: int) -> list[Gradient]:
    """Sites with other curvatures and other optima: averages of local work drift."""
    rng = np.random.default_rng(3)

    def site() -> Gradient:
        root = rng.normal(size=(WIDTH, WIDTH))
        curved, best = root @ root.T / WIDTH + np.eye(WIDTH), rng.normal(size=WIDTH) * 3
        return lambda x: curved @ (x - best)

    return [site() for _ in range(sites)]


def regressions(sites: int) -> list[Gradient]:
    """Logistic regression, of whose records each site has one label only."""
    rng = np.random.default_rng(4)

    def site(number: int) -> Gradient:
        features = rng.normal(size=(30, WIDTH)) + number
        labels = np.full(30, number % 2, np.float64)

        def gradient(x: Numbers) -> Numbers:
            chances = 1.0 / (1.0 + np.exp(-features @ x))
            return features.T @ (chances - labels) / 30 + 0.1 * x

        return gradient

    return [site(number) for number in range(sites)]


def scaffold(gradients: Sequence[Gradient], rounds: int) -> Numbers:
    """Algorithm 1 of the article, with option II, all sites taking part, a global rate of 1."""
    x, c = np.zeros(WIDTH), np.zeros(WIDTH)
    own = [np.zeros(WIDTH) for _ in gradients]
    for _ in range(rounds):
        moves, changes = [], []
        for site, gradient in enumerate(gradients):
            y = x.copy()
            for _ in range(STEPS):
                y = y - RATE * (gradient(y) - own[site] + c)
            new = own[site] - c + (x - y) / (STEPS * RATE)
            moves.append(y - x)
            changes.append(new - own[site])
            own[site] = new
        x, c = x + np.mean(moves, axis=0), c + np.mean(changes, axis=0)
    return x


def ours(gradients: Sequence[Gradient], rounds: int, rule: LocalRule) -> Numbers:
    """The same by the steps that recipes make, and by the merge."""
    model, common = torch.zeros(WIDTH, dtype=torch.float64), Companions()
    own = [Companions() for _ in gradients]
    for _ in range(rounds):
        left = []
        for site, gradient in enumerate(gradients):
            weight = model.clone().requires_grad_()
            optimiser = torch.optim.SGD([weight], lr=RATE)
            steps = Steps(rule, [weight], common, own[site].variate, usual_mu=0.0)
            for _ in range(STEPS):
                weight.grad = torch.from_numpy(gradient(weight.detach().numpy()))
                steps.pull()
                optimiser.step()
                steps.stepped(RATE)
            own[site] = steps.after(optimiser, seed=0)
            left.append(weight.detach())
        model = torch.stack(left).mean(dim=0)
        common = Companions(variate=mean_variate(lambda: own, [1.0] * len(own)))
    return model.numpy()


@pytest.mark.parametrize("problem", [quadratics, regressions])
def test_scaffold_is_the_articles(problem: Callable[[int], list[Gradient]]) -> None:
    gradients = problem(4)
    for rounds in (1, 2, 9):
        np.testing.assert_allclose(
            ours(gradients, rounds, SCAFFOLD), scaffold(gradients, rounds), rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("problem", [quadratics, regressions])
def test_scaffold_ends_where_all_data_does_and_averaging_does_not(
    problem: Callable[[int], list[Gradient]],
) -> None:
    gradients = problem(4)

    def slope(x: Numbers) -> float:
        return float(np.linalg.norm(np.mean([gradient(x) for gradient in gradients], axis=0)))

    averaged = ours(gradients, 200, LocalRule(merged=True))
    corrected = ours(gradients, 200, SCAFFOLD)
    assert slope(corrected) < 1e-6 < 1e-2 < slope(averaged)


def test_a_site_without_a_variate_works_as_in_fedavg_and_has_one_afterwards() -> None:
    (gradient,) = quadratics(1)
    common = Companions(variate=[torch.full((WIDTH,), 0.7, dtype=torch.float64)])
    found = []
    for rule, companions in ((SCAFFOLD, common), (LocalRule(merged=True), Companions())):
        weight = torch.zeros(WIDTH, dtype=torch.float64, requires_grad=True)
        steps = Steps(rule, [weight], companions, (), usual_mu=0.0)
        optimiser = torch.optim.SGD([weight], lr=RATE)
        for _ in range(STEPS):
            weight.grad = torch.from_numpy(gradient(weight.detach().numpy()))
            optimiser.step()
            steps.stepped(RATE)
        found.append((weight.detach().clone(), steps.after(optimiser, seed=0).variate))
    (alone, (variate,)), (plain, none) = found
    assert torch.equal(alone, plain)
    assert not none
    torch.testing.assert_close(variate, -alone / (STEPS * RATE))


def test_the_mean_variate_counts_those_that_have_one_by_their_shares() -> None:
    models = [Companions(variate=[torch.full((2,), each)]) for each in (1.0, 5.0)]
    (mean,) = mean_variate(lambda: [models[0], Companions(), models[1]], [3.0, 100.0, 1.0])
    assert mean.tolist() == [2.0, 2.0]
    assert mean_variate(lambda: [Companions()], [1.0]) == []


def test_no_variate_moves_the_mean_much_further_than_others() -> None:
    models = [Companions(variate=[torch.full((2,), each)]) for each in (1.0, 1.0, 1.0, 1e30)]
    (mean,) = mean_variate(lambda: models, [1.0, 1.0, 1.0, 1e9])
    assert mean.tolist() == pytest.approx([2.0, 2.0])


@pytest.mark.parametrize(
    ("rule", "pull"),
    [
        (LocalRule(mu=0.5), [0.5, 0.5]),
        (LocalRule(), [0.25, 0.25]),
        (LocalRule(mu=0.0), [0.0, 0.0]),
        (LocalRule(consolidation=2.0), [2.0 + 0.25, 8.0 + 0.25]),
        (LocalRule(mu=0.0, consolidation=2.0), [2.0, 8.0]),
    ],
)
def test_pulls_are_the_gradients_of_what_holds_weights(rule: LocalRule, pull: list[float]) -> None:
    """Against automatic differentiation of the penalties as the articles write them."""
    importance = torch.tensor([1.0, 4.0])  # Of two units with one weight each.
    weight = torch.tensor([1.0, -1.0], requires_grad=True)
    steps = Steps(rule, [weight], Companions(importance=[importance]), (), usual_mu=0.25)
    with torch.no_grad():
        weight += torch.tensor([0.5, 2.0])
    gap = weight - torch.tensor([1.0, -1.0])
    wanted = (torch.tensor(pull) / 2 * gap.square()).sum()
    (expected,) = torch.autograd.grad(wanted, weight)
    weight.grad = torch.zeros(2)
    steps.pull()
    torch.testing.assert_close(weight.grad, expected)


def test_importance_is_that_of_units_and_told_in_octaves() -> None:
    """As Fisher's diagonal orders them, with nothing of the values that the weights read."""
    rng = torch.Generator().manual_seed(1)
    squares = [torch.rand(200, 5, generator=rng) ** 4 * 1e-5]
    (first,) = importance_after([], squares, seed=7)
    assert first.shape == (200, 1)
    assert set(first.log2().flatten().tolist()) <= set(range(-6, 7)), "powers of two of the mean"
    ranks = [each.flatten().argsort().argsort().double() for each in (first, units(squares[0]))]
    assert float(torch.corrcoef(torch.stack(ranks))[0, 1]) > 0.7
    torch.testing.assert_close(units(squares[0].flip(dims=(1,))), units(squares[0]))
    (again,) = importance_after([], squares, seed=7)
    (other,) = importance_after([], squares, seed=8)
    assert torch.equal(first, again)
    assert not torch.equal(first, other), "the noise is the site's secret"
    (second,) = importance_after([first], squares, seed=7)
    torch.testing.assert_close(second, first * 1.9)
    (none,) = importance_after([first], [torch.zeros(200, 5)], seed=7)
    torch.testing.assert_close(none, first * 0.9)


def test_distillation_is_the_divergence_of_softened_answers() -> None:
    scores = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    taught = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    ours_hot = functional.softmax(scores / TEMPERATURE, dim=1).numpy()
    theirs = functional.softmax(taught / TEMPERATURE, dim=1).numpy()
    expected = TEMPERATURE**2 * (theirs * np.log(theirs / ours_hot)).sum(axis=1)
    np.testing.assert_allclose(distilled(scores, taught).numpy(), expected, rtol=1e-4, atol=1e-6)
    assert float(distilled(taught, taught).abs().max()) < 1e-6
