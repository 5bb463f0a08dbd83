"""Expected answer lengths, learned per model and kind of request from earlier answers.

A kind is what is known before anyone is asked: the API, the limit that the request sets, the length
of its prompt, what it needs, its topic. A kind with few answers is expected to be like its model,
and a model with few answers like all.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import inf, sqrt
from typing import NamedTuple, Protocol

import msgspec

from daitn.objects.queries import QueryIntent

__all__ = ["AnswerLengths", "Foreseen", "LengthModel", "Moments", "expecting"]

UNKNOWN_TOKENS = 64.0
"""Expected length before any answer was seen."""
MOST_KINDS = 1024
"""Names and topics come from clients, so kinds are bounded. The kind without an answer for longest
makes room."""
MOST_TOKENS = 2**15
"""An answer counts as no longer than this, nor than its request allowed: a server may report any
number."""
NEWEST_WEIGHT = 0.02
"""Weight of the newest answer in a mean of many. The standard deviation of answers' lengths is
about their mean, so the mean of this many has an error of a tenth."""
PRIOR_ANSWERS = 5.0
"""The expectation for a wider kind weighs as much as this many answers of the narrower one.
Neither 20 nor a weight of 0.005 above was better; see `benchmarks/routing.py`."""


class Foreseen(NamedTuple):
    """The expected length of a query's answer, in tokens."""

    mean: float
    root_mean_square: float
    """The length for estimates of time: in a queue, an answer delays others by the square of its
    length (Pollaczek and Khinchine). In `benchmarks/routing.py`, it makes the slowest answers
    faster than the mean does if few are long, and as fast on recorded lengths."""
    usual: float | None
    """Mean of the answers for which the query may wait; `None` means the same as its own."""


class LengthModel(Protocol):
    """Estimates the lengths of answers."""

    def learn(self, intent: QueryIntent, tokens: int) -> None:
        """Count an answer of this many tokens."""
        ...

    def foreseen(self, intent: QueryIntent) -> Foreseen:
        """The expected lengths of the query's answer."""
        ...


def expecting(intent: QueryIntent, lengths: LengthModel) -> QueryIntent:
    """The intent with the expected lengths of its answer."""
    if not intent.tokens_out:  # Neither vectors nor rankings have a length.
        return intent
    mean, timed, usual = lengths.foreseen(intent)
    return msgspec.structs.replace(
        intent, tokens_expected=mean, tokens_timed=timed, tokens_usual=usual
    )


class Moments:
    """Exponentially weighted means of lengths and of their squares, which start as plain means."""

    __slots__ = ("_count", "_mean", "_square")

    def __init__(self) -> None:
        self._count = self._mean = self._square = 0.0

    def take(self, tokens: float) -> None:
        self._count = min(self._count + 1.0, 1.0 / NEWEST_WEIGHT)
        self._mean += (tokens - self._mean) / self._count
        self._square += (tokens * tokens - self._square) / self._count

    def given(self, mean: float, square: float) -> tuple[float, float]:
        """The expectation here, given that of the wider kind."""
        own = self._count / (self._count + PRIOR_ANSWERS)
        return mean + own * (self._mean - mean), square + own * (self._square - square)


class AnswerLengths:
    """Moments per API, per model, and per kind of request to a model."""

    def __init__(self) -> None:
        self._moments: dict[Hashable, Moments] = {}

    def learn(self, intent: QueryIntent, tokens: int) -> None:
        if tokens <= 0:  # Nothing was said, or nothing counted.
            return
        most = MOST_TOKENS if intent.open_ended else min(intent.tokens_out, MOST_TOKENS)
        for kind in _kinds(intent):
            moments = self._moments.pop(kind, None)
            if moments is None:
                if len(self._moments) >= MOST_KINDS:
                    del self._moments[next(iter(self._moments))]
                moments = Moments()
            self._moments[kind] = moments
            moments.take(min(tokens, most))

    def foreseen(self, intent: QueryIntent) -> Foreseen:
        all_, model, own = _kinds(intent)
        usual = self._given(model, self._given(all_, (UNKNOWN_TOKENS, UNKNOWN_TOKENS**2)))
        mean, square = self._given(own, usual)
        most = inf if intent.open_ended else float(intent.tokens_out)
        return Foreseen(min(mean, most), min(sqrt(square), most), usual[0])

    def _given(self, kind: Hashable, wider: tuple[float, float]) -> tuple[float, float]:
        moments = self._moments.get(kind)
        return wider if moments is None else moments.given(*wider)


def _kinds(intent: QueryIntent) -> tuple[Hashable, Hashable, Hashable]:
    """The kinds to which a query belongs, widest first. Lengths of one kind are within a factor of
    two."""
    api, model = intent.api, intent.model
    limit = 0 if intent.open_ended else intent.tokens_out.bit_length()
    own = limit, intent.tokens_in.bit_length(), intent.needs, intent.topic
    return api, (api, model), (api, model, own)
