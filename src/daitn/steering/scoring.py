"""How a forwarder compares the ways on which an object may go on.

Every term is a function of what one way offers, never of the other ways: two forwarders that look
at the same offer from places that are `d` seconds apart then differ by nothing but `d`. So the
score of what a packet was promised grows at every hop towards it, which is what keeps packets from
circling (see `daitn.steering.ranking`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from daitn.objects.intents import Preference
from daitn.policy.policy import Policy
from daitn.steering.next_hops import NextHops
from daitn.topology.qrrt.snapshot import Flags, Floats

__all__ = ["HALF_USD", "STEERING", "advertised_scores", "cost_share"]

HALF_S = 0.5
"""A way that takes so long is worth half of one that takes no time."""
HALF_USD = 1e-3
"""Likewise of cost."""


def _accuracy(hops: NextHops, passes: Flags) -> Floats:
    """What verification units measured on the topic; 0 where it is not known well enough."""
    return hops.known_fit


def _latency(hops: NextHops, passes: Flags) -> Floats:
    """Of the expected time until the answer is here, with what receipts and waiting objects say."""
    terms: Floats = HALF_S / (HALF_S + hops.weighed_s)
    return terms


def _cost(hops: NextHops, passes: Flags) -> Floats:
    terms: Floats = HALF_USD / (HALF_USD + hops.cost_usd)
    return terms


STEERING: Final = Policy[NextHops](
    name="aats",
    scorers={"accuracy": _accuracy, "latency": _latency, "cost": _cost},
    weights={"accuracy": 2.0, "latency": 1.0, "cost": 1.0},
)
"""The weights of QIRCE, so that both find the same deployments in a network at rest."""


def advertised_scores(hops: NextHops, preferences: Sequence[Preference]) -> Floats:
    """The score of each way as the next forwarder will see it, from summaries alone.

    What this forwarder has learned is left out: the next one has not learned it.
    """
    told = replace(hops, weighed_s=hops.remaining_s)
    return STEERING.scores(told, hops.passes, preferences)


def cost_share(preferences: Sequence[Preference]) -> float:
    """How much of a score is the term of cost. It is the last that is added."""
    weights = STEERING.weighted(preferences)
    weight = weights["cost"]
    return weight / sum(weights.values()) if weight > 0 else 0.0
