"""What a gateway saw of deployments while they served its queries."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["MOST_S", "Observation", "Seen", "averaged", "figures"]

NEWEST_WEIGHT = 0.2
"""Weight of the newest query in the moving averages: they follow a change within some ten."""
COUNTS_S = 30.0
"""For so long what was seen counts; then what is said does again, so that a deployment that got
well is asked again. A liar gains one query in that time."""
DOUBTED = 2.0
"""What is said is doubted where more than this times as much was seen: what is asked and what the
network adds makes honest figures differ by less."""
MOST_S = 86_400.0
"""A figure of more than a day is a mistake, or malice."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of one query. Absent figures were not seen."""

    failed: bool
    """It could not be reached, said that it failed, or broke off. Being full is no failure."""
    first_token_s: float | None = None
    """From a slot to the first piece; waiting and the way there are not in it."""
    per_token_s: float | None = None


@dataclass(slots=True)
class Seen:
    """What one gateway saw of one deployment, averaged."""

    at_s: float = 0.0
    averages: dict[str, float] = field(default_factory=dict)

    def take(self, seen: Observation, now_s: float) -> None:
        self.at_s = now_s
        for name, value in figures(seen):
            before = self.averages.get(name, 0.0 if name == "error_share" else value)
            self.averages[name] = averaged(before, value)

    def believed(self, name: str, said: float, now_s: float) -> float:
        """What is said of the deployment, unless far more was seen lately."""
        own = self.averages.get(name, 0.0)
        return own if own > DOUBTED * said and now_s < self.at_s + COUNTS_S else said


def figures(seen: Observation) -> list[tuple[str, float]]:
    """The figures of an observation that can be, by the names of their columns."""
    times = ("first_token_s", seen.first_token_s), ("per_token_s", seen.per_token_s)
    sensible = [(name, s) for name, s in times if s is not None and 0.0 <= s <= MOST_S]
    return [("error_share", float(seen.failed)), *sensible]


def averaged(before: float, sample: float) -> float:
    """The exponentially weighted moving average after one more sample."""
    return before + NEWEST_WEIGHT * (sample - before)
