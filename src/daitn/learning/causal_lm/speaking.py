"""A causal language model in use: it answers questions, chooses among options, and embeds texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from daitn.learning.answering.protocol import SAMPLING, Facts, Piece, Question, only_message
from daitn.learning.causal_lm.models import CausalModel
from daitn.learning.causal_lm.network import LanguageModel
from daitn.learning.causal_lm.rows import TokenRow, continuation_scores, tensors
from daitn.learning.causal_lm.sampling import Sampler, Speech, draw
from daitn.learning.causal_lm.settings import CausalLmConfig
from daitn.learning.causal_lm.tokens import Codec
from daitn.objects.choices import LETTERS, read_question
from daitn.objects.errors import ContextExceeded

__all__ = ["CausalGenerator", "chosen"]

_SHARPNESS = 1.0
"""Factor on option scores before they become probabilities: p(option | question) by Bayes from log
p(question | option), with equally likely options. Measured on MedQuAD after four visits: on visited
topics the likeliest option has 0.875 on average and is right in 0.887 of 400 items (expected
calibration error 0.03; the best factor would be 1.05); on an unvisited one, 0.72 and 0.63 (0.09;
0.6). Means per token would need a factor of 10 to 14."""


@torch.inference_mode()
def chosen(
    network: LanguageModel,
    codec: Codec,
    question: str,
    options: tuple[str, ...],
) -> Piece:
    """The letter of the option that makes the question most likely, as in measurements."""
    rows = [TokenRow(codec.answer(option), [codec.question(question)]) for option in options]
    scores, _, _ = continuation_scores(network, tensors(rows))
    chances = torch.log_softmax(_SHARPNESS * scores[:, 0].cpu(), dim=0)
    best = int(chances.argmax())
    return Piece(LETTERS[best], float(chances[best]))


class CausalGenerator:
    """See `daitn.learning.answering.protocol.Generator`.

    It answers a multiple-choice question (`daitn.objects.choices`) with a letter, as the model is
    measured: the option that makes the question most likely. It reads one message, because the
    recipe trains on single questions.
    """

    def __init__(self, model: CausalModel, settings: CausalLmConfig) -> None:
        self._model = model
        self._settings = settings
        self._codec = model.codec(settings)
        # It was trained on no later positions: longer texts would be gibberish.
        context = self._codec.most_tokens
        self.most_tokens = context
        self.facts = Facts(context_tokens=context, reads_in_parts=True, honours=SAMPLING)

    def length(self, question: Question) -> int:
        """Length of the question in tokens."""
        text = only_message(question)
        if read_question(text) is not None:
            # Its parts are cut as in measurements, and each is read separately.
            return len(self._model.codec(self._settings).question(text))
        return len(self._codec.asked(text))

    def answer(self, question: Question) -> Iterator[Piece]:
        """See `Generator.answer`."""
        text = only_message(question)
        found = read_question(text)
        if found is not None:
            yield chosen(self._model.network, self._model.codec(self._settings), *found)
        else:
            yield from self._generate(self._codec.asked(text), question)

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """The mean of the last hidden states of each text, scaled to length 1."""
        read = [self._codec.text_alone(text) for text in texts]
        longest, context = max(map(len, read)), self.facts.context_tokens
        if longest > context:
            raise ContextExceeded(
                f"this model reads {context} tokens of a text, but one has {longest}",
                field="input",
                fix="shorten it",
            )
        rows = tensors([TokenRow(tokens, []) for tokens in read])
        hidden = rows.hidden(self._model.network).float().cpu()
        seen = (rows.segments == 0).unsqueeze(-1)
        mean = (hidden * seen).sum(dim=1) / seen.sum(dim=1)
        vectors: list[list[float]] = torch.nn.functional.normalize(mean, dim=-1).tolist()
        return vectors

    def _generate(self, fresh: list[int], question: Question) -> Iterator[Piece]:
        codec, network, memory = self._codec, self._model.network, None
        sampler = Sampler(question, codec.ends, codec.tokens)
        speech = Speech(codec.text, codec.name, each=question.top_logprobs is not None)
        room = self.facts.context_tokens - len(fresh)
        for _ in range(min(question.max_tokens or room, room)):
            with torch.inference_mode():
                hidden, memory = network.following(torch.tensor(fresh), memory)
                (drawn,) = draw(network.logits(hidden[-1:]).float().cpu(), [sampler])
            if drawn.token in codec.ends:
                break
            fresh = [drawn.token]
            if (piece := speech.add(drawn)) is not None:
                yield piece
        if (piece := speech.rest()) is not None:
            yield piece
