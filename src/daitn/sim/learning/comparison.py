"""Policies side by side: the share of reachable targets they reach, how soon, and at what cost.

An episode counts as reachable if any obvious policy reached all its targets. A policy that misses
is charged its whole time budget, and the most examples that any policy used there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from daitn.sim.learning.episode import Episode
from daitn.topology.arrays import Floats

__all__ = ["Judged", "PolicyResult", "compared"]


@dataclass(frozen=True)
class Judged:
    """One world's episodes by policy."""

    family: str
    seed: int
    budget_s: float
    reachable: bool
    episodes: Mapping[str, Episode]
    oracle_s: float | None = None
    """Soonest known in hindsight; None if unknown."""
    oracle_examples: float | None = None
    known: bool = True
    """Whether some route over honest sites alone is known to reach all targets at once."""

    def seconds(self, policy: str) -> float:
        episode = self.episodes[policy]
        return episode.seconds if episode.reached else self.budget_s

    def examples(self, policy: str) -> float:
        episode = self.episodes[policy]
        if episode.reached:
            return float(max(1, episode.examples))
        return float(max(1, *(other.examples for other in self.episodes.values())))


@dataclass(frozen=True)
class PolicyResult:
    """Comparison of one policy. Ratios are its own value over the other's: below 1 is better."""

    policy: str
    episodes: int
    reachable: int
    reached_share: float
    """Share of the reachable episodes."""
    reached_known: float
    """Share reached of all episodes in which an honest route is known to reach the targets in
    time."""
    reached_besides: int
    """Episodes that it reached but no obvious policy did."""
    mean_share_of_budget: float
    wasted_share: float
    """Mean share of the time budget spent in episodes that neither it nor any obvious policy
    reached."""
    against: dict[str, tuple[float, float]]
    """Per other policy: the arithmetic and the geometric mean of the time ratios."""
    best_obvious_s: float
    """Geometric mean of its time over that of the best obvious policy of each episode."""
    best_obvious_examples: float
    oracle_mean: float
    oracle_worst: float
    oracle_examples: float
    decision_median_s: float
    decision_p99_s: float


def compared(judged: Sequence[Judged], policy: str, obvious: Sequence[str]) -> PolicyResult:
    """Compare `policy` with all others that took part."""
    among = [world for world in judged if world.reachable]
    others = [name for name in judged[0].episodes if name != policy] if judged else []
    seconds = np.array([world.seconds(policy) for world in among])
    examples = np.array([world.examples(policy) for world in among])
    against = {}
    for other in others:
        ratios = seconds / np.array([world.seconds(other) for world in among])
        against[other] = (_mean(ratios), _geometric(ratios))
    best_s = np.array([min(world.seconds(name) for name in obvious) for world in among])
    best_examples = np.array([min(world.examples(name) for name in obvious) for world in among])
    hindsight = [world for world in among if world.oracle_s is not None]
    over = np.array([world.seconds(policy) / (world.oracle_s or np.nan) for world in hindsight])
    over_examples = np.array(
        [world.examples(policy) / (world.oracle_examples or np.nan) for world in hindsight]
    )
    took_s = np.array([s for world in judged for s in world.episodes[policy].decision_s])
    return PolicyResult(
        policy=policy,
        episodes=len(judged),
        reachable=len(among),
        reached_share=_mean(np.array([float(w.episodes[policy].reached) for w in among])),
        reached_known=_mean(
            np.array([float(w.episodes[policy].reached) for w in judged if w.known])
        ),
        reached_besides=sum(w.episodes[policy].reached and not w.reachable for w in judged),
        mean_share_of_budget=_mean(seconds / np.array([w.budget_s for w in among])),
        wasted_share=_mean(
            np.array(
                [
                    world.episodes[policy].seconds / world.budget_s
                    for world in judged
                    if not (world.reachable or world.episodes[policy].reached)
                ]
            )
        ),
        against=against,
        best_obvious_s=_geometric(seconds / best_s),
        best_obvious_examples=_geometric(examples / best_examples),
        oracle_mean=_mean(over),
        oracle_worst=float(over.max()) if len(over) else float("nan"),
        oracle_examples=_mean(over_examples),
        decision_median_s=float(np.median(took_s)) if len(took_s) else float("nan"),
        decision_p99_s=float(np.quantile(took_s, 0.99)) if len(took_s) else float("nan"),
    )


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _geometric(values: Floats) -> float:
    return float(np.exp(np.log(values).mean())) if len(values) else float("nan")
