"""MS-DRRT: the part of a DRRT that matters to one model (paper, section III-B).

Every filter examines every candidate, so an owner sees all obstacles at once. A rejection names the
field of the intent that would have to change and the value at which this filter would pass;
`daitn.topology.relaxation` defines how such values are written and applied.
"""

from __future__ import annotations

from daitn.objects.intents import TrainingIntent
from daitn.topology.cuts import STALE_AFTER_S, Cuts
from daitn.topology.snapshot import Drrt, MsDrrt

__all__ = ["STALE_AFTER_S", "relevant_to"]


def relevant_to(
    snapshot: Drrt,
    intent: TrainingIntent,
    *,
    data_schema: str,
    test_schema: str,
    now_s: float,
    memory_bytes: int,
    stale_after_s: float = STALE_AFTER_S,
    labels: tuple[str, ...] = (),
    labels_field: str = "",
    private: bool = False,
) -> MsDrrt:
    """Cut the topology for `intent`, once; `Cuts` does so repeatedly.

    `data_schema`, `test_schema` and `memory_bytes` are what the intent's recipe needs, `labels`
    those that its model distinguishes, `labels_field` the field that names them, and `private`
    whether it can be trained with differential privacy (see `WorkNeeds`). Readings older than
    `stale_after_s` at `now_s` are reported as stale and not used: a requirement that depends on one
    fails, a queue that depends on one is 0. Coverage is 0 if nobody can measure.
    """
    return Cuts().relevant_to(
        snapshot,
        intent,
        data_schema=data_schema,
        test_schema=test_schema,
        now_s=now_s,
        memory_bytes=memory_bytes,
        stale_after_s=stale_after_s,
        labels=labels,
        labels_field=labels_field,
        private=private,
    )
