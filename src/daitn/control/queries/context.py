"""The inputs and results of a query's routing decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from daitn.objects.decisions import Decision, Relaxation
from daitn.objects.intents import Preference
from daitn.objects.queries import QueryIntent, Strategy
from daitn.topology.qrrt.snapshot import Paths, Qrrt

__all__ = ["QueryContext", "QueryPlan", "QueryRefusal", "TooLong"]


@dataclass(frozen=True, slots=True)
class QueryContext:
    """Everything QIRCE may read. A recorded context and seed reproduce the decision exactly."""

    intent: QueryIntent
    snapshot: Qrrt
    paths: Paths
    """From the deciding gateway."""
    in_flight: NDArray[np.float64]
    """Per row, queries in flight there as this gateway estimates them (`daitn.topology.qrrt.load`):
    it knows its own at once, while the facility's report takes time. Read-only here; recorded as a
    copy."""
    now_s: float
    affinity: int = -1
    """Row that last answered the session, or a prompt with the same prefix; -1 means none."""
    excluded: tuple[int, ...] = ()
    """Rows that were tried for this query and failed."""

    @property
    def snapshot_version(self) -> int:
        return self.snapshot.version

    @property
    def preferences(self) -> tuple[Preference, ...]:
        prefer: Mapping[str, float] = self.intent.constraints.prefer
        return tuple(Preference(scorer=name, weight=weight) for name, weight in prefer.items())


class QueryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Which deployments to query, by row of the snapshot on which the decision was made."""

    strategy: Strategy
    """Also `single` if the constraints ask for another strategy and only one model may answer."""
    rows: tuple[int, ...]
    """Single: the row to query, then the fallbacks. Cascade: the same, for the cheap stage.
    Ensemble: the members, then the fallbacks."""
    members: int = 1
    """How many of `rows` are queried at once."""
    better: tuple[int, ...] = ()
    """Cascade: the row to query when the cheap stage is unsure, then the fallbacks."""
    expected_first_token_s: float = 0.0
    expected_cost_usd: float = 0.0
    expected_seconds: float = 0.0
    late_after_s: float = float("inf")
    """A first piece that takes longer than this is unusually late; the gateway may then query a
    second deployment."""


@dataclass(frozen=True, slots=True)
class TooLong:
    """Expected tokens of a query that no context can hold, and the longest context."""

    tokens_in: int
    tokens_out: int
    most: int


@dataclass(frozen=True, slots=True)
class QueryRefusal:
    """Why no deployment may answer (Q-FAM)."""

    code: str
    """`model_not_found`, `infeasible` (the constraints exclude everything), `overloaded` (the
    eligible deployments are full) or `unavailable` (the eligible deployments are not connected
    now)."""
    reason: str
    """A sentence for people."""
    field: str
    """The field of the request that would have to change; empty for load."""
    retry_after_s: float | None
    """When a retry may succeed, if time helps."""
    decision: Decision
    relaxations: tuple[Relaxation, ...]
    """Single changes to the constraints that would make it feasible on their own."""
    too_long: TooLong | None = None
    """Present if some deployments could answer a shorter query."""
