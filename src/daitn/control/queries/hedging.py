"""How long a query waits for one deployment before a second one is queried beside it.

Dean and Barroso, "The tail at scale", CACM 2013: hedging after the 95th percentile of the expected
time costs few requests more.
"""

from __future__ import annotations

import math

from daitn.control.queries.context import QueryContext, QueryPlan

__all__ = ["first_late_after_s", "late_after_s"]

_TIMES = -math.log(0.05)
"""Multiple of the expected time: the 95th percentile of an exponential distribution."""
_LEAST_S = 0.05


def first_late_after_s(expected_s: float) -> float:
    """When a first piece that is expected after `expected_s` is unusually late."""
    return _TIMES * expected_s + _LEAST_S


def late_after_s(plan: QueryPlan, context: QueryContext, row: int, *, stream: bool) -> float:
    """When a row's answer is unusually late. Plans estimate first pieces; an answer in one piece
    still needs all its tokens."""
    if stream:
        return plan.late_after_s
    per_token_s = float(context.snapshot.columns.per_token_s[row])
    return plan.late_after_s + _TIMES * per_token_s * context.intent.timed_tokens
