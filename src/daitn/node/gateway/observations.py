"""Observations of deployments while they answer, for the topology.

They exclude the wait for a slot and the round-trip time, which the topology knows from other
sources.
"""

from __future__ import annotations

from dataclasses import replace

from daitn.control.queries import observing
from daitn.node.gateway.context import RequestContext
from daitn.node.gateway.deployment_answer import Answer
from daitn.objects.abilities import Need
from daitn.openai.responses import Usage
from daitn.topology.qrrt.observation import Observation, PromptSize

__all__ = ["observed_late", "observed_stream", "observed_whole"]

_NOT_TEXT = frozenset({Need.RECORD, Need.IMAGE, Need.AUDIO, Need.VIDEO, Need.FILE})


def observed_stream(
    answer: Answer, tokens: int, blocked_s: float, usage: Usage | None
) -> Observation:
    """Observe a complete stream; for `blocked_s` its client did not read on. `usage`: as
    reported."""
    streaming_s = answer.ended_s - answer.started_s - blocked_s
    return Observation(
        failed=False,
        first_token_s=_served_s(answer, answer.started_s),
        per_token_s=max(0.0, streaming_s) / (tokens - 1) if tokens > 1 else None,
        prompt=_prompt(answer.query, usage),
    )


def observed_whole(answer: Answer, tokens: int) -> Observation:
    """Observe a buffered answer."""
    served_s = _served_s(answer, answer.ended_s)
    columns = answer.query.snapshot.columns
    seen = observing.seen_whole(
        columns, answer.row, served_s, tokens, answer.reported_first_token_s
    )
    return replace(seen, prompt=_prompt(answer.query, answer.usage))


def observed_late(query: RequestContext, row: int, waited_s: float, *, stream: bool) -> Observation:
    """Observe a deployment that a hedge overtook: it takes at least this long."""
    served_s = max(0.0, waited_s - float(query.paths.rtt_s[row]))
    if stream:
        return Observation(failed=False, first_token_s=served_s)
    tokens = round(query.intent.timed_tokens)
    return observing.seen_whole(query.snapshot.columns, row, served_s, tokens)


def _prompt(query: RequestContext, usage: Usage | None) -> PromptSize | None:
    """What the answer reveals about the model's tokenizer: nothing if the prompt is not all
    text."""
    intent = query.intent
    tokens = None if usage is None else usage.prompt_tokens
    if tokens is None or intent.characters is None or not _NOT_TEXT.isdisjoint(intent.needs):
        return None
    return PromptSize(intent.characters, tokens - intent.tokens_apart)


def _served_s(answer: Answer, until_s: float) -> float:
    rtt_s = float(answer.query.paths.rtt_s[answer.row])
    return max(0.0, until_s - answer.asked_s - answer.waited_s - rtt_s)
