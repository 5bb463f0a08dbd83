"""QIRCE, the query inference route compute engine (paper, section IV)."""

from __future__ import annotations

from daitn.control.queries.context import QueryContext, QueryPlan, Refusal
from daitn.objects.decisions import Decision
from daitn.policy.pipeline import Rng

__all__ = ["Qirce"]


class Qirce:
    """Decides on one query: a plan, or why there is none."""

    def decide(self, context: QueryContext, rng: Rng) -> QueryPlan | Refusal:
        """Raises `InvalidInput` for a preference that names no scorer."""
        raise NotImplementedError

    def explain(self, context: QueryContext, rng: Rng) -> Decision:
        """The same decision with its ranking, terms and rejections; slower."""
        raise NotImplementedError
