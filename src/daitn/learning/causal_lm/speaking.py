"""A causal language model in use: it answers questions, chooses among options, embeds texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from daitn.learning.answering.protocol import Piece, Question
from daitn.learning.causal_lm.models import Model
from daitn.learning.causal_lm.rows import TokenRow, continuation_scores, tensors
from daitn.learning.causal_lm.settings import CausalLmConfig
from daitn.objects.choices import LETTERS, read_question
from daitn.objects.errors import InvalidInput

__all__ = ["CausalGenerator"]

_SHARPNESS = 1.0
"""Factor on option scores before they become probabilities: p(option | question) by Bayes from log
p(question | option), with equally likely options. Measured on MedQuAD after four visits: on visited
topics the likeliest option has 0.875 on average and is right in 0.887 of 400 items (expected
calibration error 0.03; the best factor would be 1.05); on an unvisited one, 0.72 and 0.63 (0.09;
0.6). Means per token would need a factor of 10 to 14."""


class CausalGenerator:
    """See `daitn.learning.answering.protocol.Generator`.

    It answers a multiple-choice question (`daitn.objects.choices`) with a letter, as the model is
    measured: the option that makes the question most likely. It reads only the last message with
    the role `user`, because the recipe trains on single questions.
    """

    def __init__(self, model: Model, settings: CausalLmConfig) -> None:
        self._model = model
        self._settings = settings
        # Anything longer than its training answers would be babble.
        self.most_tokens = settings.answer_tokens

    def length(self, question: Question) -> int:
        """Length of the question in tokens, after cutting."""
        return len(self._model.codec(self._settings).prompt(_asked(question)))

    def answer(self, question: Question) -> Iterator[Piece]:
        """See `Generator.answer`."""
        asked = _asked(question)
        found = read_question(asked)
        if found is not None:
            yield self._choose(*found)
        else:
            yield from self._generate(asked, question)

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """The mean of the last hidden states of each text, scaled to length 1."""
        codec = self._model.codec(self._settings)
        rows = tensors([TokenRow(codec.answer(text), []) for text in texts])
        hidden = rows.hidden(self._model.network).float().cpu()
        read = (rows.segments == 0).unsqueeze(-1)
        mean = (hidden * read).sum(dim=1) / read.sum(dim=1)
        vectors: list[list[float]] = torch.nn.functional.normalize(mean, dim=-1).tolist()
        return vectors

    @torch.inference_mode()
    def _choose(self, question: str, options: tuple[str, ...]) -> Piece:
        codec = self._model.codec(self._settings)
        rows = [TokenRow(codec.answer(option), [codec.question(question)]) for option in options]
        scores, _, _ = continuation_scores(self._model.network, tensors(rows))
        chances = torch.log_softmax(_SHARPNESS * scores[:, 0].cpu(), dim=0)
        best = int(chances.argmax())
        return Piece(LETTERS[best], float(chances[best]))

    def _generate(self, asked: str, question: Question) -> Iterator[Piece]:
        codec, network = self._model.codec(self._settings), self._model.network
        generator = torch.Generator().manual_seed(question.seed)
        said, shown, logprob, held = list[int](), "", 0.0, 0
        fresh, memory = codec.prompt(asked), None
        for _ in range(min(question.max_tokens, self.most_tokens)):
            with torch.inference_mode():
                hidden, memory = network.following(torch.tensor(fresh), memory)
                scores = network.logits(hidden[-1]).float().cpu()
            token, chance = _drawn(scores, question, generator)
            if codec.ends(token):
                break
            fresh = [token]
            said.append(token)
            logprob += chance
            held += 1
            text = codec.text(said)
            # A multi-byte character shows as U+FFFD until its last byte arrives.
            if text.startswith(shown) and not text.endswith("\ufffd"):
                yield Piece(text[len(shown) :], logprob, held)
                shown, logprob, held = text, 0.0, 0
        if held:
            yield Piece(codec.text(said)[len(shown) :], logprob, held)


def _drawn(scores: Tensor, question: Question, generator: torch.Generator) -> tuple[int, float]:
    """The next token, and the logarithm of its probability at temperature 1."""
    chances = torch.log_softmax(scores, -1)
    if question.temperature <= 0:
        token = int(chances.argmax())
    else:
        weights = _nucleus(torch.softmax(chances / question.temperature, -1), question.top_p)
        token = int(torch.multinomial(weights, 1, generator=generator))
    return token, float(chances[token])


def _nucleus(weights: Tensor, top_p: float) -> Tensor:
    """The weights of the likeliest tokens that together have `top_p`, 0 for all others.

    Holtzman et al., "The Curious Case of Neural Text Degeneration", ICLR 2020.
    """
    if top_p >= 1.0:
        return weights
    ordered, tokens = weights.sort(descending=True)
    before = ordered.cumsum(-1) - ordered
    return weights.index_fill(-1, tokens[before >= top_p], 0.0)


def _asked(question: Question) -> str:
    for message in reversed(question.messages):
        if message.role == "user" and message.content.strip():
            return message.content
    raise InvalidInput(
        "nothing is asked", field="messages", fix="end with a message of the role user"
    )
