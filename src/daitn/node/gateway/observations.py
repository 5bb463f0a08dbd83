"""Observations of deployments while they answer, for the topology.

They exclude the wait for a slot and the round-trip time, which the topology knows from other
sources.
"""

from __future__ import annotations

from daitn.control.queries import observing
from daitn.node.gateway.answer import Answer
from daitn.node.gateway.context import RequestContext
from daitn.topology.qrrt.observation import Observation

__all__ = ["observed_late", "observed_stream", "observed_whole"]


def observed_stream(answer: Answer, tokens: int, blocked_s: float) -> Observation:
    """Observe a complete stream; for `blocked_s` its client did not read on."""
    streaming_s = answer.ended_s - answer.started_s - blocked_s
    return Observation(
        failed=False,
        first_token_s=_served_s(answer, answer.started_s),
        per_token_s=max(0.0, streaming_s) / (tokens - 1) if tokens > 1 else None,
    )


def observed_whole(answer: Answer, tokens: int) -> Observation:
    """Observe a buffered answer."""
    served_s = _served_s(answer, answer.ended_s)
    columns = answer.query.snapshot.columns
    return observing.seen_whole(
        columns, answer.row, served_s, tokens, answer.reported_first_token_s
    )


def observed_late(query: RequestContext, row: int, waited_s: float, *, stream: bool) -> Observation:
    """Observe a deployment that a hedge overtook: it takes at least this long."""
    served_s = max(0.0, waited_s - float(query.paths.rtt_s[row]))
    if stream:
        return Observation(failed=False, first_token_s=served_s)
    return observing.seen_whole(query.snapshot.columns, row, served_s, query.intent.tokens_out)


def _served_s(answer: Answer, until_s: float) -> float:
    rtt_s = float(answer.query.paths.rtt_s[answer.row])
    return max(0.0, until_s - answer.asked_s - answer.waited_s - rtt_s)
