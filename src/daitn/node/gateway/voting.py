"""Weighted votes over an ensemble's answers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from daitn.node.gateway.context import RequestContext
from daitn.objects.choices import chosen, read_question, wants_letter
from daitn.objects.queries import Trust
from daitn.openai.responses import text_of
from daitn.topology.qrrt.accuracy import accuracy_on

__all__ = ["vote", "winner"]

_MAX_ACCURACY = 0.99
"""Upper bound of accuracies: a few hundred test items cannot support a higher one."""


def winner(query: RequestContext, answers: Sequence[tuple[int | None, bytes]]) -> int:
    """Index of the answer to return. Each answer is a row, none for an unknown deployment, and a
    response of OpenAI's API. Answers are weighted by the accuracy that verification units measured
    on the query's topic."""
    text = query.parsed.text
    question = read_question(text) if wants_letter(text) else None
    options = len(question[1]) if question else 0
    measured = accuracy_on(query.snapshot, query.intent.topic, Trust.WEIGHTS).value
    accuracies = [math.nan if row is None else float(measured[row]) for row, _ in answers]
    return vote([text_of(body) or "" for _, body in answers], accuracies, options)


def vote(texts: Sequence[str], accuracies: Sequence[float], options: int) -> int:
    """Index of the winning answer. `options`: number of options of a multiple-choice question, 0
    for others.

    Voters of accuracy p who err independently weigh log(p / (1 - p)): Nitzan and Paroush, "Optimal
    decision rules in uncertain dichotomous choice situations", 1982. With k options, of which
    errors take the wrong ones alike, that is log((k - 1) p / (1 - p)). Voters of unknown accuracy,
    or no better than chance, decide only where all others are equal.
    """
    weights: dict[str, float] = {}
    names = [_normal(text, options) for text in texts]
    min_weight = 1e-6
    for name, p in zip(names, accuracies, strict=True):
        capped = min(max(p, 1 - _MAX_ACCURACY), _MAX_ACCURACY)
        weight = math.log((max(options, 2) - 1) * capped / (1 - capped))
        weights[name] = weights.get(name, 0.0) + (
            min_weight if math.isnan(p) else max(weight, min_weight)
        )
    scores = [
        (weights[name], -math.inf if math.isnan(p) else p, -index)
        for index, (name, p) in enumerate(zip(names, accuracies, strict=True))
    ]
    return -max(scores)[2]


def _normal(text: str, options: int) -> str:
    choice = chosen(text, options) if options else None
    return f"option {choice}" if choice is not None else " ".join(text.casefold().split())
