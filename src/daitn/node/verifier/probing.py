"""Questions of an examination that are asked beforehand, one by one, each at a random moment.

They take the same path through gateways as a round's, with the same headers and sizes: nothing
tells them from a client's question but what they ask.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Generic, TypeVar

from daitn.control.two_faced import Paired
from daitn.learning.corpora.records import MultipleChoice
from daitn.objects.moments import DAY_S

__all__ = ["MARKED_FOR_S", "PROBES", "Probing"]

T = TypeVar("T", bound=Hashable)

PROBES = 3
"""Probes among a round's items: an eighth more questions, at the usual 24."""
MARKED_FOR_S = 7 * DAY_S
"""For this long after a deployment of a facility was marked, what else appears there begins marked:
another name or manifest is no way to lose a mark."""


class Probing(Generic[T]):
    """The next round of each target, which items are asked beforehand, and the results of that."""

    def __init__(self, rng: random.Random, facility_of: Callable[[T], str]) -> None:
        self._rng, self._facility_of = rng, facility_of
        self._rounds: dict[T, list[MultipleChoice]] = {}
        self._planned: dict[T, list[tuple[float, MultipleChoice]]] = {}
        self._alone: dict[T, dict[MultipleChoice, bool | None]] = {}
        self.paired: dict[T, Paired] = {}
        """By target: how its answers compare."""
        self.marked_at_s: dict[str, float] = {}
        """By facility: when the evidence last sufficed to mark a deployment of it."""

    def plan(self, target: T, items: list[MultipleChoice], now_s: float, within_s: float) -> None:
        """Fix a target's next round, and ask some of its items singly until then."""
        self._rounds[target] = items
        self._alone[target] = {}
        self._planned[target] = [
            (now_s + self._rng.uniform(0.0, within_s), item)
            for item in self._rng.sample(items, min(PROBES, len(items)))
        ]

    def due(self, until_s: float) -> Iterator[tuple[float, T, MultipleChoice]]:
        """The questions to ask until then, each with its moment: asked together, they would look
        like a round."""
        for target, planned in self._planned.items():
            for moment_s, item in [one for one in planned if one[0] <= until_s]:
                planned.remove((moment_s, item))
                yield moment_s, target, item

    def answered(self, target: T, item: MultipleChoice, right: bool | None) -> None:
        """Store an answer until the round; none means there was no answer."""
        if item in self._rounds.get(target, ()):
            self._alone[target][item] = right

    def round_of(self, target: T) -> list[MultipleChoice]:
        """The fixed round, once; empty if there is none."""
        self._planned.pop(target, None)
        return self._rounds.pop(target, [])

    def compared(
        self,
        target: T,
        grades: Iterable[tuple[MultipleChoice, bool | None]],
        now_s: float,
        *,
        anew: bool,
    ) -> Paired:
        """Compare a round with the earlier answers. `anew`: the model was replaced, and so are
        answers before that; how its facility treats questions is no matter of the model."""
        alone = self._alone.pop(target, {})
        if anew:
            alone = {}
        anew = anew or target not in self.paired
        paired = self.paired.setdefault(target, Paired())
        facility = self._facility_of(target)
        if anew and now_s - self.marked_at_s.get(facility, -math.inf) < MARKED_FOR_S:
            paired.suspect()
        for item, right in grades:
            if right is not None and item in alone and paired.compared(alone[item], right):
                self.marked_at_s[facility] = now_s
        past_s = now_s - MARKED_FOR_S
        self.marked_at_s = {one: at_s for one, at_s in self.marked_at_s.items() if at_s > past_s}
        return paired

    def forget(self, target: T) -> None:
        """Forget a target."""
        for known in (self._rounds, self._planned, self._alone, self.paired):
            known.pop(target, None)
