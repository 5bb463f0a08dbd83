"""What a gateway observed of deployments while they served its queries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from daitn.objects.tokens import Characters

__all__ = [
    "FAILED",
    "MOST_S",
    "Observation",
    "PromptSize",
    "Seen",
    "age_of",
    "averaged",
    "figures",
    "first_share",
]

NEWEST_WEIGHT = 0.2
"""Weight of the newest query in the moving averages: they follow a change within some ten
queries."""
FORGOTTEN_HALF_S = 2.0
"""Half-life of the weight of earlier queries: after a pause, the first query counts most."""
COUNTS_S = 30.0
"""Lifetime of an observation; then the descriptor counts again, so that a recovered deployment is
tried again. A liar gains one query in that time."""
DOUBTED = 2.0
"""A reported figure is doubted if the observed one exceeds it by more than this factor: honest
figures differ by less, given the variety of queries and the network's share."""
MOST_S = 86_400.0
"""A figure of more than a day is a mistake or malice."""


@dataclass(frozen=True, slots=True)
class PromptSize:
    """A prompt, and the tokens that the deployment reported for its characters."""

    characters: Characters
    tokens: float


@dataclass(frozen=True, slots=True)
class Observation:
    """Observation of one query. Absent figures were not observed."""

    failed: bool
    """It was unreachable, reported a failure, or broke off. Being full is not a failure."""
    first_token_s: float | None = None
    """From taking a slot to the first piece, without waiting and the network."""
    per_token_s: float | None = None
    prompt: PromptSize | None = None


FAILED: Final = Observation(failed=True)


@dataclass(slots=True)
class Seen:
    """One gateway's averaged observations of one deployment."""

    at_s: float = 0.0
    averages: dict[str, float] = field(default_factory=dict)

    def age_s(self, now_s: float) -> float:
        """Time since the last observation; 0 if there was none."""
        return now_s - self.at_s if self.averages else 0.0

    def take(self, seen: Observation, now_s: float) -> None:
        age_s, self.at_s = self.age_s(now_s), now_s
        for name, value in figures(seen):
            before = self.averages.get(name, 0.0 if name == "error_share" else value)
            self.averages[name] = averaged(before, value, age_of(name, age_s))

    def believed(self, name: str, reported: float, now_s: float) -> float:
        """The reported figure, unless the gateway recently observed a far larger one."""
        own = self.averages.get(name, 0.0)
        return own if own > DOUBTED * reported and now_s < self.at_s + COUNTS_S else reported


def figures(seen: Observation) -> list[tuple[str, float]]:
    """The plausible figures of an observation, by the names of their columns."""
    times = ("first_token_s", seen.first_token_s), ("per_token_s", seen.per_token_s)
    sensible = [(name, s) for name, s in times if s is not None and 0.0 <= s <= MOST_S]
    return [("error_share", float(seen.failed)), *sensible]


def age_of(figure: str, age_s: float) -> float:
    """The age by which to discount a figure observed `age_s` seconds ago: 0 for the share of
    failures, which time alone does not improve."""
    return 0.0 if figure == "error_share" else age_s


def first_share(first_token_s: float, per_token_s: float, tokens: int) -> float:
    """Share of the time of an answer in one piece that its first token is assumed to take, as in
    answers whose parts were measured."""
    whole_s = first_token_s + per_token_s * (tokens - 1)
    return first_token_s / whole_s if whole_s > 0 else 1.0


def averaged(before: float | None, sample: float, age_s: float = 0.0) -> float:
    """The exponentially weighted moving average after another `sample`.

    `before`: the average so far, `None` for the first sample. `age_s`: seconds since the last
    sample; the longer, the less `before` counts.
    """
    if before is None:
        return sample
    kept: float = (1.0 - NEWEST_WEIGHT) * 0.5 ** (max(0.0, age_s) / FORGOTTEN_HALF_S)
    return sample + kept * (before - sample)
