"""The accountant against an integral, against `dp-accounting`, and against what it promises."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from daitn.control.privacy_accounting import (
    NOTHING,
    epsilon,
    fits,
    least_noise,
    schedule,
    spent_by,
    stricter,
    visits_left,
)
from daitn.objects.privacy import NoiseMechanism, PrivacyDemand, PrivacyWish

DELTA = 1e-5


def told(rate: float, noise: float, steps: int) -> float:
    return epsilon(spent_by([NoiseMechanism(rate=rate, noise=noise, steps=steps)]), DELTA)


@pytest.mark.parametrize(
    ("rate", "noise", "order"), [(0.25, 1.0, 2), (0.25, 3.0, 5), (0.01, 0.8, 4), (0.9, 2.0, 8)]
)
def test_a_step_tells_what_the_integral_of_the_divergence_says(
    rate: float, noise: float, order: int
) -> None:
    """Renyi divergence of the mixture from the Gaussian, and the other way, by quadrature."""

    def log_ratio(x: float) -> float:
        return math.log1p(rate * math.expm1((2 * x - 1) / (2 * noise**2)))

    def density(x: float) -> float:
        return math.exp(-(x**2) / (2 * noise**2)) / (noise * math.sqrt(2 * math.pi))

    def divergence(power: int) -> float:
        integral, _ = quad(
            lambda x: density(x) * math.exp(power * log_ratio(x)), -60, 60 + order, limit=400
        )
        return math.log(integral) / (order - 1)

    ours = spent_by([NoiseMechanism(rate=rate, noise=noise, steps=1)])[order - 2]
    assert ours == pytest.approx(divergence(order), rel=1e-6)
    assert ours >= divergence(1 - order) - 1e-12  # Of a record that is left out.


@pytest.mark.parametrize(
    ("rate", "noise", "steps", "theirs"),
    [
        # By the RdpAccountant of dp-accounting 0.6.0, which takes orders between whole numbers too.
        (0.25, 1.0, 20, 9.0990),
        (0.25, 3.0, 40, 2.5695),
        (0.1, 1.2, 100, 5.6651),
        (1.0, 5.0, 10, 2.8137),
        (0.01, 0.8, 1000, 3.6956),
        (0.5, 8.0, 30, 1.4663),
    ],
)
def test_epsilon_is_that_of_another_accountant(
    rate: float, noise: float, steps: int, theirs: float
) -> None:
    ours = told(rate, noise, steps)
    assert theirs - 1e-3 <= ours <= 1.01 * theirs


@given(
    rate=st.floats(0.01, 1.0),
    steps=st.integers(1, 500),
    most=st.floats(0.1, 20.0),
    times=st.integers(1, 5),
)
def test_the_least_noise_is_enough_and_hardly_less_is(
    rate: float, steps: int, most: float, times: int
) -> None:
    noise = least_noise(rate, steps, most, DELTA, times)
    assert told(rate, noise, times * steps) <= most * (1 + 1e-9)
    assert noise <= 0.011 or told(rate, 0.99 * noise, times * steps) > most


@given(samples=st.integers(10, 10**6), examples=st.integers(10, 10**6))
def test_a_visit_is_on_no_more_examples_than_it_was_given(samples: int, examples: int) -> None:
    rate, steps = schedule(samples, examples)
    assert 0.0 < rate <= 1.0
    assert steps >= 1
    assert rate * samples * steps <= examples * (1 + 1e-9)


def test_visits_compose_to_less_than_the_sum_of_epsilons_and_stay_in_the_budget() -> None:
    demand = PrivacyDemand(epsilon_total=3.0, epsilon_per_visit=1.0)
    noise = least_noise(0.25, 40, 1.0, DELTA)
    visit = spent_by([NoiseMechanism(rate=0.25, noise=noise, steps=40)])
    spent, visits, left = NOTHING, 0, [visits_left(NOTHING, demand)]
    while fits(spent, visit, demand.epsilon_total, demand.delta):
        spent, visits = spent + visit, visits + 1
        left.append(visits_left(spent, demand))
    assert epsilon(spent, DELTA) <= demand.epsilon_total < epsilon(spent + visit, DELTA)
    # Less than the sum of what each tells: three visits of 1 take less than 3.
    assert visits > 3
    assert left == sorted(left, reverse=True)
    assert all(told <= visits - n for n, told in enumerate(left))


def test_the_stricter_of_two_holds() -> None:
    wish = PrivacyWish(epsilon=8.0, delta=1e-6, clip=0.5)
    demand = PrivacyDemand(epsilon_total=10.0, epsilon_per_visit=2.0)
    of_demand, of_both = stricter(None, demand, 0.25, 40), stricter(wish, demand, 0.25, 40)
    of_wish = stricter(wish, None, 0.25, 40)
    assert of_demand
    assert of_wish
    assert of_both == (of_demand.noise, wish.delta, wish.clip)
    assert of_wish.noise < of_demand.noise
    assert stricter(None, None, 0.25, 40) is None
    spread = stricter(PrivacyWish(epsilon=8.0, visits=4), None, 0.25, 40)
    assert spread
    assert spread.noise > of_wish.noise
