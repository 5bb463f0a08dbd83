"""Samples tokens from a model's scores, with each query's parameters, and decodes them to text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence

import msgspec
import torch
from torch import Tensor

from daitn.learning.answering.protocol import Piece, Question, Token
from daitn.objects.errors import InvalidInput, WorkFailed

__all__ = ["Drawn", "Sampler", "Speech", "draw"]

_FEW = 512
"""Number of tokens sufficient for most draws; sorting a whole vocabulary takes as long as a step of
a small model."""
_MOST_HELD = 4
"""A character has at most four bytes, hence at most this many tokens."""


class Drawn(msgspec.Struct, frozen=True):
    """A token of an answer."""

    token: int
    logprob: float
    """Under the model, regardless of the draw's settings."""
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Draws the tokens of one answer; the same seed and scores give the same tokens."""

    def __init__(self, question: Question, ends: Collection[int], vocabulary: int) -> None:
        """`ends`: tokens that end an answer. Raises `InvalidInput` for unknown tokens."""
        if foreign := [token for token in question.logit_bias if not 0 <= token < vocabulary]:
            raise InvalidInput(
                f"{foreign[0]} is not one of {vocabulary} tokens",
                field="logit_bias",
                fix="name tokens of this model",
            )
        self.question = question
        self.ends = frozenset(ends)
        self._counts: Counter[int] = Counter()
        self._generator = torch.Generator().manual_seed(question.seed)

    def shaped(self, scores: Tensor) -> Tensor:
        """The scores of the next token (one dimension), adjusted by the question's settings."""
        question = self.question
        early = self._counts.total() < question.min_tokens
        if not (early or question.logit_bias or (self._counts and self._penalised)):
            return scores
        scores = scores.clone()
        if self._counts and self._penalised:
            tokens = torch.tensor(list(self._counts), device=scores.device)
            times = torch.tensor(list(self._counts.values()), device=scores.device)
            found = scores[tokens]
            repeated = question.repetition_penalty
            found = torch.where(found > 0, found / repeated, found * repeated)
            scores[tokens] = found - question.presence_penalty - times * question.frequency_penalty
        for token, bias in question.logit_bias.items():
            scores[token] += bias
        if early:
            scores[list(self.ends)] = -torch.inf
        return scores

    def pick(self, scores: Tensor) -> int:
        """The next token, from adjusted scores."""
        question = self.question
        if question.temperature <= 0:
            return int(scores.argmax())
        chances = torch.softmax(scores / question.temperature, -1)
        tokens = None
        if question.top_p < 1.0 or question.top_k or question.min_p:
            chances, tokens = self._likely(chances)
        sums = chances.double().cumsum(-1)
        # On the CPU, so that a seed means the same on every device.
        drawn = torch.rand((), generator=self._generator, dtype=torch.float64).item() * sums[-1]
        place = int(torch.searchsorted(sums, drawn, right=True).clamp(max=len(sums) - 1))
        return place if tokens is None else int(tokens[place])

    def _likely(self, chances: Tensor) -> tuple[Tensor, Tensor]:
        """The probabilities of the tokens that may be drawn, likeliest first, with the tokens."""
        question = self.question
        best, tokens = chances.topk(min(_FEW, len(chances)))
        enough = 0 < question.top_k <= len(best)
        if not (enough or best[-1] < question.min_p * best[0] or best.sum() >= question.top_p):
            best, tokens = chances.sort(descending=True)
        # The first token that exceeds the threshold is the last one included: Holtzman et al., "The
        # Curious Case of Neural Text Degeneration", ICLR 2020.
        kept = (best.cumsum(-1) - best < question.top_p) & (best >= question.min_p * best[0])
        if question.top_k:
            kept[question.top_k :] = False
        kept[0] = True
        return best * kept, tokens

    def record(self, token: int) -> None:
        """Record a token of the answer."""
        self._counts[token] += 1

    @property
    def _penalised(self) -> bool:
        question = self.question
        penalties = (
            question.frequency_penalty,
            question.presence_penalty,
            question.repetition_penalty,
        )
        return penalties != (0.0, 0.0, 1.0)


def draw(scores: Tensor, samplers: Sequence[Sampler]) -> list[Drawn]:
    """The next token of each answer, from its row of scores (answers x vocabulary).

    Raises `WorkFailed` for scores that are not finite.
    """
    chances = torch.log_softmax(scores.float(), -1)
    tokens = [
        sampler.pick(sampler.shaped(row)) for sampler, row in zip(samplers, scores, strict=True)
    ]
    own = chances.gather(1, torch.tensor(tokens, device=scores.device)[:, None])[:, 0].tolist()
    drawn = []
    for row, sampler, token, logprob in zip(chances, samplers, tokens, own, strict=True):
        if logprob != logprob:
            raise WorkFailed("the model's scores are not finite", field="model")
        sampler.record(token)
        drawn.append(Drawn(token, logprob, _likeliest(row, sampler.question.top_logprobs or 0)))
    return drawn


def _likeliest(chances: Tensor, count: int) -> tuple[tuple[int, float], ...]:
    if count == 0:
        return ()
    best = chances.topk(min(count, len(chances)))
    return tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))


class Speech:
    """Converts tokens to text as they arrive."""

    def __init__(
        self, text: Callable[[list[int]], str], name: Callable[[int], str], *, each: bool
    ) -> None:
        """`text`: the text of tokens. `name`: the name of a token that is not text. `each`: whether
        pieces list their tokens."""
        self._text = text
        self._name = name
        self._each = each
        self._before: list[int] = []
        """Text of the last piece: a token's text depends on what precedes it."""
        self._held: list[Drawn] = []

    def add(self, drawn: Drawn) -> Piece | None:
        """The piece completed by a token, if any."""
        self._held.append(drawn)
        # A character of several tokens shows as U+FFFD until the last one arrives.
        if self._new().endswith("\ufffd") and len(self._held) < _MOST_HELD:
            return None
        return self.rest()

    def rest(self) -> Piece | None:
        """The incomplete piece at the end, if any."""
        if not self._held:
            return None
        held, text = self._held, self._new()
        self._before, self._held = [drawn.token for drawn in held], []
        named = held if self._each else ()
        each = tuple(self._named(one.token, one.logprob, one.top) for one in named)
        return Piece(text, sum(drawn.logprob for drawn in held), len(held), each)

    def _new(self) -> str:
        before = self._text(self._before)
        whole = self._text([*self._before, *(drawn.token for drawn in self._held)])
        return whole.removeprefix(before)

    def _named(self, token: int, logprob: float, top: tuple[tuple[int, float], ...] = ()) -> Token:
        text = self._text([token])
        whole = bool(text) and "\ufffd" not in text
        likeliest = tuple(self._named(*one) for one in top)
        return Token(text if whole else self._name(token), logprob, whole, likeliest)
