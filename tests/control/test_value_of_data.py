"""The value of data, beside an oracle that goes through all orders."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.control.value.game import NOBODY, Coalition, Game, Known, Worth

Value = Callable[[Coalition], float]


def played(game: Game, value: Value, error: float = 0.0) -> dict[Coalition, Worth]:
    """What is known once everything was measured that the game asks for."""

    def worth(coalition: Coalition) -> Worth:
        return Worth((value(coalition),), (error,))

    known = {NOBODY: worth(NOBODY), game.everybody: worth(game.everybody)}
    while (wanted := game.next(known)) is not None:
        assert wanted not in known
        known[wanted] = worth(wanted)
    return known


def values(game: Game, known: Known) -> list[float]:
    shares = game.shares(known)
    assert shares is not None
    return [
        math.fsum(weight * known[key].values[0] for key, weight in share.weights.items())
        for share in shares
    ]


def by_all_orders(players: int, value: Value) -> list[float]:
    """The definition: the mean, over all orders, of what a player adds to those before it."""
    totals = [0.0] * players
    for order in itertools.permutations(range(players)):
        for place, player in enumerate(order):
            before = frozenset(order[:place])
            totals[player] += value(before | {player}) - value(before)
    return [total / math.factorial(players) for total in totals]


@st.composite
def games(draw: st.DrawFn) -> tuple[int, dict[Coalition, float]]:
    players = draw(st.integers(1, 5))
    subsets = itertools.chain.from_iterable(
        itertools.combinations(range(players), size) for size in range(players + 1)
    )
    return players, {
        frozenset(one): draw(st.floats(0, 1, allow_subnormal=False)) for one in subsets
    }


@given(games())
@settings(max_examples=60)
def test_few_players_get_what_the_definition_says(made: tuple[int, dict[Coalition, float]]) -> None:
    players, table = made
    game = Game(players, "qa-1", most=100)
    assert game.exact
    known = played(game, table.__getitem__)
    assert len(known) == 2**players
    assert values(game, known) == pytest.approx(by_all_orders(players, table.__getitem__))


@given(games(), st.integers(0, 40), st.floats(0, 0.3))
@settings(max_examples=100)
def test_however_little_is_measured_the_parts_sum_to_the_gain(
    made: tuple[int, dict[Coalition, float]], most: int, error: float
) -> None:
    players, table = made
    game = Game(players, "qa-1", most=most)
    known = played(game, table.__getitem__, error)
    assert len(known) <= most + 2
    if game.shares(known) is not None:
        gain = table[game.everybody] - table[NOBODY]
        assert sum(values(game, known)) == pytest.approx(gain, abs=1e-9)


@given(st.lists(st.floats(-0.2, 0.2), min_size=6, max_size=6), st.integers(0, 10**6))
@settings(max_examples=30)
def test_sampled_values_are_near_the_exact_ones(weights: list[float], seed: int) -> None:
    """Of a saturating game of six; and a player that adds nothing gets nothing."""
    weights[2] = 0.0

    def value(coalition: Coalition) -> float:
        return math.tanh(sum(weights[player] for player in sorted(coalition)))

    game = Game(6, str(seed), most=40)
    assert not game.exact
    known = played(game, value)
    found, exact = values(game, known), by_all_orders(6, value)
    shares = game.shares(known)
    assert shares is not None
    for player in range(6):
        error = math.sqrt(shares[player].sampled[0])
        assert abs(found[player] - exact[player]) <= max(6 * error, 0.02)
    assert found[2] == pytest.approx(0.0, abs=1e-12)


def test_an_order_ends_where_the_rest_adds_nothing_that_can_be_measured() -> None:
    def value(coalition: Coalition) -> float:
        return min(len(coalition), 2) / 2 + len(coalition) / 1e4

    game = Game(10, "a", most=60)
    full, cut = played(game, value), played(game, value, error=0.01)
    assert max(len(one) for one in full if len(one) < 10) == 9
    assert max(len(one) for one in cut if len(one) < 10) == 2
    assert values(game, cut) == pytest.approx([0.1] * 10, abs=0.12)


def test_a_coalition_that_a_robust_rule_does_not_merge_leaves_the_model_as_it_was() -> None:
    def value(coalition: Coalition) -> float:
        return len(coalition) / 4 if len(coalition) >= 3 else 0.0

    game = Game(4, "a", most=20, least=3)
    known = played(game, value)
    assert {len(one) for one in known} == {0, 3, 4}
    assert values(game, known) == pytest.approx(by_all_orders(4, value))


def test_nothing_is_said_of_too_few_orders() -> None:
    game = Game(9, "a", most=12)
    assert game.next({}) is None
    known = {NOBODY: Worth((0.0,), (0.0,)), game.everybody: Worth((1.0,), (0.0,))}
    assert game.shares(known) is None


def test_what_is_cheap_is_not_preferred() -> None:
    """Orders count up to the first that is not complete."""

    def value(coalition: Coalition) -> float:
        return float(len(coalition))

    game = Game(5, "a", most=13)
    known = played(game, value)
    shares = game.shares(known)
    assert shares is not None
    missing = dict(known)
    del missing[max((one for one in known if 0 < len(one) < 5), key=len)]
    assert game.shares(missing) != shares
