"""MS-DRRT: the part of a DRRT that matters to one model (paper, section III-B).

Every filter examines every candidate, so an owner sees all obstacles at once. A rejection names the
field of the intent that would have to change and the value at which this filter would pass;
`daitn.topology.relaxation` defines how such values are written and applied.
"""

from __future__ import annotations

from daitn.objects.intents import TrainingIntent
from daitn.objects.model_needs import ModelNeeds
from daitn.topology.cuts import STALE_AFTER_S, Cuts
from daitn.topology.snapshot import Drrt, MsDrrt

__all__ = ["STALE_AFTER_S", "relevant_to"]


def relevant_to(
    snapshot: Drrt,
    intent: TrainingIntent,
    needs: ModelNeeds,
    *,
    now_s: float,
    stale_after_s: float = STALE_AFTER_S,
) -> MsDrrt:
    """Cut the topology for an intent whose model has these needs, once; `Cuts` does so repeatedly.

    Readings older than `stale_after_s` at `now_s` are reported as stale and not used: a requirement
    that depends on one fails, a queue that depends on one is 0. Without verifiers, coverage is 0.
    """
    return Cuts().relevant_to(snapshot, intent, needs, now_s=now_s, stale_after_s=stale_after_s)
