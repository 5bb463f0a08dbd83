"""Answers with a pretrained language model: chats, completions, tool calls and embeddings."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import torch
import transformers

from daitn.learning.answering.protocol import (
    SAMPLING,
    TEMPLATE,
    TOOLS,
    Facts,
    Message,
    Piece,
    Question,
    Room,
)
from daitn.learning.causal_lm.batching import Batcher, step_tokens
from daitn.learning.causal_lm.calls import CallReader
from daitn.learning.causal_lm.chat import read_chat
from daitn.learning.causal_lm.placing import cache_tokens
from daitn.learning.causal_lm.pretrained import load_answering
from daitn.learning.causal_lm.sampling import Drawn, Sampler, Speech, draw
from daitn.learning.causal_lm.settings import CausalLmConfig
from daitn.learning.causal_lm.speaking import chosen
from daitn.learning.causal_lm.tokenizer import MOST_TOKEN_CHARS, load_tokenizer
from daitn.learning.causal_lm.tokens import Codec
from daitn.learning.causal_lm.turns import codec_of
from daitn.objects.choices import read_question, wants_letter
from daitn.objects.errors import ContextExceeded, InvalidInput

__all__ = ["PretrainedGenerator"]

_log = logging.getLogger(__name__)

_USUAL_CONTEXT = 2048
"""Context of an architecture that states none."""


class PretrainedGenerator:
    """See `daitn.learning.answering.protocol.Generator`.

    A conversation is put into words by the model's own chat template. A model without one gets it
    as the recipe trains, in questions and answers. A multiple-choice question that stands alone
    and asks for a letter (`daitn.objects.choices`), it answers with one, as it is measured.
    """

    def __init__(self, model: Path, settings: CausalLmConfig, room: Room) -> None:
        """Load the model in the folder `model`. Raises like `load_answering`."""
        self._settings = settings
        self._tokenizer = load_tokenizer(model, settings.vocabulary)
        self._chat = read_chat(model, settings.vocabulary)
        self._network, self._adapted, self._place = load_answering(model, settings, room)
        self._codec = self._new_codec()
        self._ends = frozenset(self._chat.ends) or self._codec.ends
        self._read: tuple[object, list[int]] = (None, [])
        """The last question that was read, and its tokens: its length is requested first."""
        shape = self._network.config
        stated = getattr(shape, "max_position_embeddings", None) or _USUAL_CONTEXT
        if room.context_tokens:
            stated = min(stated, room.context_tokens)
        remembered = cache_tokens(self._place, self._per_token_bytes(), stated, room)
        self.most_tokens = context = min(stated, remembered)
        self._batcher = self._new_batcher(remembered, room.slots)
        batched = self._batcher is not None
        self.facts = Facts(
            context_tokens=context,
            # Other answers in a batch affect the rounding of sums, and thus sometimes a token.
            deterministic=not batched and self._place.device.type == "cpu",
            honours=(
                *SAMPLING,
                *(TOOLS if self._chat.knows_tools else ()),
                *(TEMPLATE if self._chat.template is not None else ()),
            ),
            runs_on=(
                f"{self._place}, transformers {transformers.__version__}, "
                f"{f'batches of up to {room.slots} answers' if batched else 'one token in turn'}, "
                f"context of {context} tokens, memory for {remembered}"
            ),
        )

    def length(self, question: Question) -> int:
        """See `Generator.length`."""
        if (choice := _choice(question)) is not None:
            return len(self._new_codec().question(choice[0]))
        return len(self._tokens(question))

    def answer(self, question: Question) -> Iterator[Piece | None]:
        """See `Generator.answer`."""
        if (choice := _choice(question)) is not None:
            yield chosen(self._adapted, self._new_codec(), *choice)
            return
        tokens = self._tokens(question)
        if not question.tools:
            yield from self._spoken(tokens, question)
            return
        names = frozenset(str(tool["function"]["name"]) for tool in question.tools)
        reader = CallReader(names, len(tokens))
        for piece in self._spoken(tokens, question):
            if piece is None:
                yield None
            else:
                yield from reader.add(piece)
        yield from reader.rest()

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """The mean of the last hidden states of each text, scaled to length 1."""
        vectors: list[list[float]] = []
        for text in texts:
            tokens = self._encoded(text, "input", begins=True)
            if len(tokens) > self.facts.context_tokens:
                raise self._too_long("input")
            hidden, _ = self._adapted.following(self._tensor(tokens), None)
            mean = hidden.float().mean(dim=0)
            vectors.append(torch.nn.functional.normalize(mean, dim=-1).tolist())
        return vectors

    def _spoken(self, tokens: list[int], question: Question) -> Iterator[Piece | None]:
        sampler = Sampler(question, self._ends, self._settings.vocabulary)
        # Calls of tools are marked by special tokens, which otherwise are not text.
        plain = not question.tools

        def text(generated: list[int]) -> str:
            return str(self._tokenizer.decode(generated, skip_special_tokens=plain))

        speech = Speech(text, self._codec.name, each=question.top_logprobs is not None)
        most = min(question.max_tokens or self.most_tokens, self.most_tokens - len(tokens))
        answer = self._turns if self._batcher is None else self._batcher.answer
        drawn = answer(tokens, sampler, most)
        try:
            for one in drawn:
                yield None if one is None else speech.add(one)
        finally:
            drawn.close()
        if (piece := speech.rest()) is not None:
            yield piece

    @torch.inference_mode()
    def _turn(self, tokens: list[int], memory: object, sampler: Sampler) -> tuple[object, Drawn]:
        hidden, memory = self._adapted.following(self._tensor(tokens), memory)
        (drawn,) = draw(self._adapted.logits(hidden[-1:]).float(), [sampler])
        return memory, drawn

    def _turns(
        self, tokens: list[int], sampler: Sampler, most: int
    ) -> Generator[Drawn | None, None, None]:
        """Like `Batcher.answer`, for a single answer."""
        at_once, memory = step_tokens(self._place.device), None
        while len(tokens) > at_once:
            with torch.inference_mode():
                _, memory = self._adapted.following(self._tensor(tokens[:at_once]), memory)
            tokens = tokens[at_once:]
            yield None
        for _ in range(most):
            memory, drawn = self._turn(tokens, memory, sampler)
            if drawn.token in sampler.ends:
                return
            yield drawn
            tokens = [drawn.token]

    def _tokens(self, question: Question) -> list[int]:
        key = (question.messages, question.tools, question.continues, question.continues_answer)
        if self._read[0] != key:
            tokens = self._worded(question)
            if not tokens:
                raise InvalidInput("the query is empty", field="messages", fix="send a question")
            self._read = (key, tokens)
        return self._read[1]

    def _worded(self, question: Question) -> list[int]:
        """The question as the tokens that its answer follows."""
        if question.continues:
            (message,) = question.messages
            return self._encoded(message.content, "prompt", begins=True)
        if self._chat.template is not None:
            text = self._chat.rendered(question.messages, question.tools, question.continues_answer)
            return self._encoded(text, "messages")
        tokens = list[int]()
        for place, message in enumerate(question.messages):
            encoded = self._encoded(message.content, "messages")
            tokens += self._codec.turn(_role(message, place), encoded)
        return self._codec.before_answer(tokens)

    def _encoded(self, text: str, field: str, *, begins: bool = False) -> list[int]:
        if len(text) > MOST_TOKEN_CHARS * self.facts.context_tokens:
            raise self._too_long(field)
        return [*(self._chat.begins if begins else ()), *self._codec.whole(text)]

    def _too_long(self, field: str) -> ContextExceeded:
        return ContextExceeded(
            f"this model's maximum context length is {self.facts.context_tokens} tokens",
            field=field,
            fix="shorten it",
        )

    def _tensor(self, tokens: Sequence[int]) -> torch.Tensor:
        return torch.tensor(tokens, device=self._place.device)

    def _new_codec(self) -> Codec:
        """A codec stores everything that it cuts."""
        return codec_of(self._tokenizer, self._settings, self._adapted.end, self._chat)

    def _per_token_bytes(self) -> int:
        """Cache per token: keys and values, and its column in the mask of a step."""
        shape = self._network.config
        heads = getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads
        width = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
        numbers = 2 * int(shape.num_hidden_layers * heads * width) + step_tokens(self._place.device)
        return numbers * self._place.dtype.itemsize

    def _new_batcher(self, remembered: int, slots: int) -> Batcher | None:
        """None if the library cannot batch this architecture, as an attempt shows."""
        if self._network.config._attn_implementation != "sdpa":
            return None  # Batches would change it for all other uses, too.
        try:
            batcher = Batcher(self._network, cache_tokens=remembered, slots=slots)
            question = Question(messages=(), max_tokens=1, temperature=0.0, seed=0)
            for _ in batcher.answer([0, 1, 2], Sampler(question, (), self._settings.vocabulary), 2):
                pass
        except Exception as error:
            _log.warning("answers take turns: %s: %s", type(error).__name__, error)
            return None
        return batcher


def _choice(question: Question) -> tuple[str, tuple[str, ...]] | None:
    """The multiple-choice question in a question."""
    if len(question.messages) != 1 or question.continues or question.tools:
        return None
    text = question.messages[0].content
    return read_question(text) if wants_letter(text) else None


def _role(message: Message, place: int) -> str:
    if message.role in ("user", "assistant", "system", "developer") and not message.calls:
        return message.role
    raise InvalidInput(
        f"this model has no chat template and cannot read calls of the role {message.role}",
        field=f"messages[{place}]",
        fix="leave it out",
    )
