"""How long answers will be, learnt per model and kind of request from those that were passed on.

A kind is what is known before anyone is asked: the API, the limit that the request sets, the length
of its prompt, what it needs, its topic. A kind with few answers is expected to be like its model,
and a model with few answers like all.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

import msgspec

from daitn.objects.queries import QueryIntent

__all__ = ["AnswerLengths", "LengthModel", "Mean", "expecting"]

UNKNOWN_TOKENS = 64.0
"""Expected before any answer was seen."""
MOST_KINDS = 1024
"""Names and topics come from clients. The kind without an answer for longest makes room."""
MOST_TOKENS = 2**17
"""An answer counts as no longer than this: a server may report any number."""
NEWEST_WEIGHT = 0.02
"""Of the newest answer in a mean of many. Lengths vary as much as they are long, so that a mean of
so many answers is off by a tenth."""
PRIOR_ANSWERS = 5.0
"""What is expected of a wider kind weighs as much as so many answers of the narrower one. Neither
20 nor a weight of 0.005 above were better; see `benchmarks/routing.py`."""


class LengthModel(Protocol):
    """Guesses how long answers will be."""

    def learn(self, intent: QueryIntent, tokens: int) -> None:
        """A query got an answer of so many tokens."""
        ...

    def expected(self, intent: QueryIntent) -> float:
        """Tokens of the query's answer."""
        ...

    def usual(self, intent: QueryIntent) -> float | None:
        """Tokens of the answers that the query may wait for; none: as many as its own."""
        ...


def expecting(intent: QueryIntent, lengths: LengthModel) -> QueryIntent:
    """The intent with what is expected of its answer."""
    if not intent.tokens_out:  # Embeddings have no length.
        return intent
    expected, usual = lengths.expected(intent), lengths.usual(intent)
    return msgspec.structs.replace(intent, tokens_expected=expected, tokens_usual=usual)


class Mean:
    """An exponentially weighted mean that begins as a plain one."""

    __slots__ = ("_count", "_value")

    def __init__(self) -> None:
        self._count = self._value = 0.0

    def take(self, sample: float) -> None:
        self._count = min(self._count + 1.0, 1.0 / NEWEST_WEIGHT)
        self._value += (sample - self._value) / self._count

    def expected(self, wider: float) -> float:
        """The next sample, where `wider` is expected of all around."""
        weighted = self._count * self._value + PRIOR_ANSWERS * wider
        return weighted / (self._count + PRIOR_ANSWERS)


class AnswerLengths:
    """Means per API, per model, and per kind of request to a model."""

    def __init__(self) -> None:
        self._means: dict[Hashable, Mean] = {}

    def learn(self, intent: QueryIntent, tokens: int) -> None:
        if tokens <= 0:  # Nothing was said, or nothing counted.
            return
        for kind in _kinds(intent):
            mean = self._means.pop(kind, None)
            if mean is None:
                if len(self._means) >= MOST_KINDS:
                    del self._means[next(iter(self._means))]
                mean = Mean()
            self._means[kind] = mean
            mean.take(min(tokens, MOST_TOKENS))

    def expected(self, intent: QueryIntent) -> float:
        tokens = self._expected(_kinds(intent))
        return tokens if intent.open_ended else min(tokens, float(intent.tokens_out))

    def usual(self, intent: QueryIntent) -> float | None:
        """Of the model, whatever is asked of it."""
        return self._expected(_kinds(intent)[:2])

    def _expected(self, kinds: tuple[Hashable, ...]) -> float:
        tokens = UNKNOWN_TOKENS
        for kind in kinds:
            mean = self._means.get(kind)
            if mean is not None:
                tokens = mean.expected(tokens)
        return tokens


def _kinds(intent: QueryIntent) -> tuple[Hashable, ...]:
    """The kinds that a query belongs to, the widest first. Lengths of one kind are within a factor
    of two."""
    api, model = intent.api, intent.model
    limit = 0 if intent.open_ended else intent.tokens_out.bit_length()
    own = limit, intent.tokens_in.bit_length(), intent.needs, intent.topic
    return api, (api, model), (api, model, own)
