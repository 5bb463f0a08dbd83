"""What a query's route is decided on, and what is decided."""

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

__all__ = ["QueryContext", "QueryPlan", "QueryRefusal"]

_NOBODY: NDArray[np.float64] = np.zeros(0)


@dataclass(frozen=True, slots=True)
class QueryContext:
    """All that QIRCE may look at. A recorded context and seed give the identical decision."""

    intent: QueryIntent
    snapshot: Qrrt
    paths: Paths
    """From the gateway that decides."""
    in_flight: NDArray[np.float64]
    """Per row, queries that are there as this gateway reckons (`daitn.topology.qrrt.load`): its
    own it knows at once, what the facility says takes its time. Read-only here; recorded by copy.
    """
    now_s: float
    affinity: int = -1
    """Row that answered the session, or a prompt of the same prefix, last; -1: none."""
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
    """Which deployments are asked, by row of the snapshot that the decision was made on."""

    strategy: Strategy
    """`single` too where the wishes name another one and only one model may answer."""
    rows: tuple[int, ...]
    """Single: the one to ask, then those to fall back on. Cascade: the same, for the cheap
    stage. Ensemble: the members, then those to fall back on."""
    members: int = 1
    """How many of `rows` are asked at once."""
    better: tuple[int, ...] = ()
    """Cascade: whom to ask, then to fall back on, where the cheap stage is unsure."""
    expected_first_token_s: float = 0.0
    expected_cost_usd: float = 0.0
    expected_seconds: float = 0.0
    late_after_s: float = float("inf")
    """A first piece that takes longer than this is unusually late: a second deployment may be
    asked."""


@dataclass(frozen=True, slots=True)
class QueryRefusal:
    """Why no deployment may answer (Q-FAM)."""

    code: str
    """`model_not_found`, `infeasible` (the query's wishes exclude everything), `overloaded` (what
    may answer is full) or `unavailable` (what may answer is not there now)."""
    reason: str
    """A sentence for people."""
    field: str
    """The field of the request that would have to change; empty for load."""
    retry_after_s: float | None
    """When it may go better, where time helps."""
    decision: Decision
    relaxations: tuple[Relaxation, ...]
    """Single changes of the wishes that would, by themselves, make it feasible."""
