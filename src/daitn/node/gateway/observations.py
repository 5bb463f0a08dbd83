"""What a gateway sees of deployments while they answer, for the topology.

Waiting for a slot and the way there are taken off: the topology knows them by other means.
"""

from __future__ import annotations

from daitn.node.gateway.answer import Answer
from daitn.node.gateway.context import RequestContext
from daitn.topology.qrrt.observation import Observation

__all__ = ["seen_late", "seen_stream", "seen_whole"]


def seen_stream(answer: Answer, tokens: int, held_s: float) -> Observation:
    """Of a stream that came to its end; for `held_s` its asker did not take what was there."""
    further_s = answer.ended_s - answer.begun_s - held_s
    return Observation(
        failed=False,
        first_token_s=_served_s(answer, answer.begun_s),
        per_token_s=max(0.0, further_s) / (tokens - 1) if tokens > 1 else None,
    )


def seen_whole(answer: Answer, tokens: int) -> Observation:
    """Of an answer that came at once. Where the deployment does not tell when it began, first and
    further tokens took the same share of the time as they do otherwise."""
    served_s = _served_s(answer, answer.ended_s)
    if tokens <= 1:
        return Observation(failed=False, first_token_s=served_s)
    if answer.told_first_s is not None:
        first_s = min(answer.told_first_s, served_s)
    else:
        first_s = served_s * _share_of_first(answer.query, answer.row, tokens)
    per_token_s = (served_s - first_s) / (tokens - 1)
    return Observation(failed=False, first_token_s=first_s, per_token_s=per_token_s)


def seen_late(query: RequestContext, row: int, so_far_s: float, *, stream: bool) -> Observation:
    """Of a deployment that was overtaken by another: it takes at least this long."""
    served_s = max(0.0, so_far_s - float(query.paths.rtt_s[row]))
    tokens = query.intent.tokens_out
    if stream or tokens <= 1:
        return Observation(failed=False, first_token_s=served_s)
    first_s = served_s * _share_of_first(query, row, tokens)
    per_token_s = (served_s - first_s) / (tokens - 1)
    return Observation(failed=False, first_token_s=first_s, per_token_s=per_token_s)


def _served_s(answer: Answer, until_s: float) -> float:
    rtt_s = float(answer.query.paths.rtt_s[answer.row])
    return max(0.0, until_s - answer.asked_s - answer.waited_s - rtt_s)


def _share_of_first(query: RequestContext, row: int, tokens: int) -> float:
    columns = query.snapshot.columns
    first_s = float(columns.first_token_s[row])
    further_s = float(columns.per_token_s[row]) * (tokens - 1)
    return first_s / (first_s + further_s) if first_s + further_s > 0 else 1.0
