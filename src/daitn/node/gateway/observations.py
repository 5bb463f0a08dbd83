"""What a gateway sees of deployments while they answer, for the topology.

Waiting for a slot and the way there are taken off: the topology knows them by other means.
"""

from __future__ import annotations

from daitn.control.queries import observing
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
    """Of an answer that came at once."""
    served_s = _served_s(answer, answer.ended_s)
    columns = answer.query.snapshot.columns
    return observing.seen_whole(columns, answer.row, served_s, tokens, answer.told_first_s)


def seen_late(query: RequestContext, row: int, waited_s: float, *, stream: bool) -> Observation:
    """Of a deployment that was overtaken by another: it takes at least this long."""
    served_s = max(0.0, waited_s - float(query.paths.rtt_s[row]))
    if stream:
        return Observation(failed=False, first_token_s=served_s)
    return observing.seen_whole(query.snapshot.columns, row, served_s, query.intent.tokens_out)


def _served_s(answer: Answer, until_s: float) -> float:
    rtt_s = float(answer.query.paths.rtt_s[answer.row])
    return max(0.0, until_s - answer.asked_s - answer.waited_s - rtt_s)
