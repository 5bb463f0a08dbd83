"""Shapley values of a game whose coalitions are measured one by one.

Players are the sites of a round. A coalition is worth what the model measures that is merged of its
members' updates, and no model is trained again (Song, Tong and Wei 2019, "Profit allocation for
federated learning"; Wang et al. 2020, "A principled approach to data valuation for federated
learning", arXiv:2009.06192). Few players are valued exactly. More are by orders drawn at random
(Castro, Gomez and Tejada 2009), each of which ends where the rest adds nothing that can be measured
(Ghorbani and Zou 2019, "Data Shapley", arXiv:1904.02868).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from blake3 import blake3

__all__ = ["NOBODY", "Coalition", "Game", "Known", "Share", "Worth"]

Coalition = frozenset[int]
"""Players by number."""
NOBODY: Coalition = frozenset()
_LEAST_ORDERS = 2
"""Fewer orders do not show their variation."""


@dataclass(frozen=True)
class Worth:
    """The measured values of a coalition, per objective, with their standard errors."""

    values: tuple[float, ...]
    standard_errors: tuple[float, ...]


Known = Mapping[Coalition, Worth]


@dataclass(frozen=True)
class Share:
    """One player's share of the coalitions' values."""

    weights: Mapping[Coalition, float]
    """Weights of the coalitions' values in the player's share."""
    sampled: tuple[float, ...]
    """Variance of the credits from drawing orders at random, for each objective; 0 means all orders
    were used."""


@dataclass(frozen=True)
class Game:
    """A game, and the number of coalitions that may be measured for it.

    What is `known` holds the empty coalition, which is the model before the round, and that of all.
    """

    players: int
    seed: str
    """Determines the orders."""
    most: int
    """Coalitions that may be measured, besides the two known ones."""
    least: int = 1
    """Minimum number of players for a merge: a smaller coalition leaves the model unchanged."""

    @property
    def everybody(self) -> Coalition:
        return frozenset(range(self.players))

    @property
    def needs(self) -> tuple[int, int]:
        """The minimum and maximum number of useful coalitions."""
        sizes = range(self.least, self.players)
        useful = sum(math.comb(self.players, size) for size in sizes)
        return min(useful, _LEAST_ORDERS * len(sizes)), useful

    @property
    def exact(self) -> bool:
        """Whether all coalitions may be measured."""
        return self.needs[1] <= self.most

    def next(self, known: Known) -> Coalition | None:
        """The coalition to measure next; `None` means there is none left."""
        if len(known.keys() - {NOBODY, self.everybody}) >= self.most:
            return None
        if self.exact:
            return next((one for one in self._coalitions() if one not in known), None)
        if self.most < self.needs[0]:
            return None
        ends = (self._walk(order, known)[-1] for order in self._orders())
        return next((end for end in ends if self._key(end) not in known), None)

    def shares(self, known: Known) -> tuple[Share, ...] | None:
        """The share of each player; none if too little is known."""
        if self.exact and all(one in known for one in self._coalitions()):
            return self._exactly(len(known[NOBODY].values))
        walks = ((order, self._walk(order, known)) for order in self._orders())
        # Up to the first incomplete one: those that happen to be known are not a fair sample.
        complete = itertools.takewhile(lambda one: self._key(one[1][-1]) in known, walks)
        orders = [self._added(order, path) for order, path in complete]
        if len(orders) < _LEAST_ORDERS:
            return None
        return _averaged(orders, known)

    def _coalitions(self) -> Iterator[Coalition]:
        """Coalitions with a value of their own, except the full one; small ones first."""
        for size in range(self.least, self.players):
            yield from map(frozenset, itertools.combinations(range(self.players), size))

    def _key(self, coalition: Coalition) -> Coalition:
        return coalition if len(coalition) >= self.least else NOBODY

    def _orders(self) -> Iterator[tuple[int, ...]]:
        for number in range(self.most):
            drawn = {
                player: blake3(f"{self.seed}/{number}/{player}".encode()).digest()
                for player in range(self.players)
            }
            yield tuple(sorted(drawn, key=drawn.__getitem__))

    def _walk(self, order: tuple[int, ...], known: Known) -> tuple[Coalition, ...]:
        """The coalitions of an order up to the first unknown one, or to the first to which the rest
        adds nothing measurable."""
        path = [NOBODY]
        for player in order:
            path.append(path[-1] | {player})
            key = self._key(path[-1])
            if key not in known or (key and _alike(known[key], known[self.everybody])):
                break
        return tuple(path)

    def _added(
        self, order: tuple[int, ...], path: tuple[Coalition, ...]
    ) -> tuple[dict[Coalition, float], ...]:
        """By player, what it adds to those before it. Players left out by an order share what is
        missing, so that the shares sum to the full coalition's value."""
        added: tuple[dict[Coalition, float], ...] = tuple({} for _ in order)
        for player, (before, after) in zip(order, itertools.pairwise(path), strict=False):
            _move(added[player], self._key(before), self._key(after), 1.0)
        rest = order[len(path) - 1 :]
        for player in rest:
            _move(added[player], self._key(path[-1]), self.everybody, 1.0 / len(rest))
        return added

    def _exactly(self, objectives: int) -> tuple[Share, ...]:
        weights: tuple[dict[Coalition, float], ...] = tuple({} for _ in range(self.players))
        for size in range(self.players):
            weight = 1.0 / (self.players * math.comb(self.players - 1, size))
            for members in itertools.combinations(range(self.players), size):
                before = frozenset(members)
                for player in self.everybody - before:
                    after = before | {player}
                    _move(weights[player], self._key(before), self._key(after), weight)
        return tuple(Share(one, (0.0,) * objectives) for one in weights)


def _alike(one: Worth, other: Worth) -> bool:
    """Whether two differ by no more than the error of measuring one of them."""
    columns = zip(one.values, other.values, other.standard_errors, strict=True)
    return all(abs(a - b) <= error for a, b, error in columns)


def _move(weights: dict[Coalition, float], before: Coalition, after: Coalition, by: float) -> None:
    weights[after] = weights.get(after, 0.0) + by
    weights[before] = weights.get(before, 0.0) - by


def _averaged(orders: list[tuple[dict[Coalition, float], ...]], known: Known) -> tuple[Share, ...]:
    """The mean over orders. Two or three orders underestimate the variance of one player's shares,
    so that it is taken to be at least the average over all players."""
    weights: list[dict[Coalition, float]] = []
    spreads: list[list[float]] = []
    for parts in zip(*orders, strict=True):
        mean: dict[Coalition, float] = {}
        for part in parts:
            for key, weight in part.items():
                mean[key] = mean.get(key, 0.0) + weight / len(orders)
        weights.append(mean)
        spreads.append([_spread(parts, known, n) for n in range(len(known[NOBODY].values))])
    pooled = [sum(column) / len(column) for column in zip(*spreads, strict=True)]
    return tuple(
        Share(mean, tuple(map(max, own, pooled)))
        for mean, own in zip(weights, spreads, strict=True)
    )


def _spread(parts: Sequence[Mapping[Coalition, float]], known: Known, objective: int) -> float:
    """Variance of the mean of a player's shares."""
    worths = [
        sum(weight * known[key].values[objective] for key, weight in part.items()) for part in parts
    ]
    mean = sum(worths) / len(worths)
    return sum((one - mean) ** 2 for one in worths) / (len(worths) - 1) / len(worths)
