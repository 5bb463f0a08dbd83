"""Which of an ensemble's answers is given."""

from __future__ import annotations

import math
from collections.abc import Sequence

from daitn.node.gateway.context import RequestContext
from daitn.objects.choices import chosen, read_question
from daitn.objects.queries import Trust
from daitn.openai.responses import text_of
from daitn.topology.qrrt.accuracy import accuracy_on

__all__ = ["vote", "winner"]

_SUREST = 0.99
"""No accuracy counts for more: a few hundred test items tell no better."""


def winner(query: RequestContext, answers: Sequence[tuple[int | None, bytes]]) -> int:
    """Index of the answer that is given. Each is a row, none where this gateway knows of none, and
    a response of OpenAI's API. Answers of higher accuracy on the query's topic weigh more, as far
    as verification units measured it."""
    question = read_question(query.parsed.text)
    options = len(question[1]) if question else 0
    known = accuracy_on(query.snapshot, query.intent.topic, Trust.WEIGHTS).value
    accuracies = [math.nan if row is None else float(known[row]) for row, _ in answers]
    return vote([text_of(body) or "" for _, body in answers], accuracies, options)


def vote(texts: Sequence[str], accuracies: Sequence[float], options: int) -> int:
    """Index of the answer that wins. `options`: of a multiple-choice question, 0 for others.

    Voters of accuracy p who err independently weigh log(p / (1 - p)): Nitzan and Paroush, "Optimal
    decision rules in uncertain dichotomous choice situations", 1982. With k options, of which
    errors take the wrong ones alike, that is log((k - 1) p / (1 - p)). Voters of unknown accuracy,
    or no better than chance, decide only where all others are equal.
    """
    weights: dict[str, float] = {}
    names = [_normal(text, options) for text in texts]
    least = 1e-6
    for name, p in zip(names, accuracies, strict=True):
        capped = min(max(p, 1 - _SUREST), _SUREST)
        weight = math.log((max(options, 2) - 1) * capped / (1 - capped))
        weights[name] = weights.get(name, 0.0) + (least if math.isnan(p) else max(weight, least))
    ranks = [
        (weights[name], -math.inf if math.isnan(p) else p, -index)
        for index, (name, p) in enumerate(zip(names, accuracies, strict=True))
    ]
    return -max(ranks)[2]


def _normal(text: str, options: int) -> str:
    choice = chosen(text, options) if options else None
    return f"option {choice}" if choice is not None else " ".join(text.casefold().split())
