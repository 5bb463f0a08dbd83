"""How a forwarder compares next hops.

Every term is a function of one next hop's offer, never of the others: two forwarders `d` seconds
apart that look at the same offer then differ by nothing but `d`. So a packet's advertised score
grows at every hop towards its origin, which keeps packets from circling (see
`daitn.steering.ranking`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from daitn.objects.intents import Preference
from daitn.policy.pipeline import Policy
from daitn.steering.next_hops import NextHops
from daitn.topology.arrays import Flags, Floats

__all__ = ["HALF_USD", "STEERING", "advertised_scores", "cost_share"]

HALF_S = 0.5
"""A next hop that takes this long is worth half of one that takes no time."""
HALF_USD = 1e-3
"""Likewise for its cost."""


def _accuracy(hops: NextHops, passes: Flags) -> Floats:
    """The accuracy measured by verifiers on the topic; that of an unmeasured deployment if the
    evidence is weaker than the required trust."""
    return hops.expected_fit


def _latency(hops: NextHops, passes: Flags) -> Floats:
    """The expected time until the answer is back, including what answers and waiting objects
    show."""
    terms: Floats = HALF_S / (HALF_S + hops.weighted_s)
    return terms


def _cost(hops: NextHops, passes: Flags) -> Floats:
    terms: Floats = HALF_USD / (HALF_USD + hops.cost_usd)
    return terms


STEERING: Final = Policy[NextHops](
    name="aats",
    scorers={"accuracy": _accuracy, "latency": _latency, "cost": _cost},
    weights={"accuracy": 2.0, "latency": 1.0, "cost": 1.0},
)
"""The weights of QIRCE, so that both find the same deployments in an idle network."""


def advertised_scores(hops: NextHops, preferences: Sequence[Preference]) -> Floats:
    """The score of each next hop as the next forwarder will see it, from summaries alone.

    It leaves out what this forwarder has learned: the next one has not learned it.
    """
    unlearned = replace(hops, weighted_s=hops.remaining_s)
    return STEERING.scores(unlearned, hops.passes, preferences)


def cost_share(preferences: Sequence[Preference]) -> float:
    """The weight of the cost term in a score. It is the last term to be added."""
    weights = STEERING.weighted(preferences)
    weight = weights["cost"]
    return weight / sum(weights.values()) if weight > 0 else 0.0
