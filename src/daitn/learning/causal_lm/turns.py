"""Turns of a chat template, as a model reads them in training and measurement.

A facility puts a question into the same words (`conversing`), so that a model is asked as it was
taught. Ranking answers (`training`) needs the question's probability given an answer: there the
user shows the answer, and the model says the question.
"""

from __future__ import annotations

from tokenizers import Tokenizer

from daitn.learning.answering.protocol import Message
from daitn.learning.causal_lm.chat import Chat
from daitn.learning.causal_lm.settings import CausalLmConfig
from daitn.learning.causal_lm.tokens import CHARACTERS_PER_TOKEN, Codec
from daitn.objects.errors import InvalidInput

__all__ = ["ChatCodec", "codec_of", "template_tokens"]

_WHICH = "Write the question that this text answers.\n\n{}"
_QUESTION, _ANSWER = "which question", "that answer"
"""Placeholders for a user's and an assistant's words, where only the template's own are needed."""


class ChatCodec(Codec):
    """A `Codec` that formats texts with a chat template."""

    def __init__(
        self, tokenizer: Tokenizer, settings: CausalLmConfig, end: int | None, chat: Chat
    ) -> None:
        """Raises `InvalidInput` for a template that does not support a single user message."""
        super().__init__(tokenizer, settings, end)
        self._chat = chat
        self._contexts: dict[str, list[int]] = {}
        self._encoded: dict[tuple[str, int], list[int]] = {}
        asked = self._rendered(_QUESTION)
        self._before = asked.rpartition(_QUESTION)[2]
        """The text between a user's words and those of the model."""
        self._before_tokens = self.whole(self._before)
        self._last = self.whole(asked)[-1:]
        self._closing = self._closed(end)

    def answer(self, text: str) -> list[int]:
        """See `Codec.answer`: everything that the model reads before it says the question, except
        the last token, with which `question` begins."""
        known = self._contexts.get(text)
        if known is None:
            start = self._start(text, self._settings.answer_tokens)
            known = self._contexts[text] = self.asked(_WHICH.format(start))[:-1]
        return known

    def question(self, text: str) -> list[int]:
        """See `Codec.question`."""
        return [*self._last, *self._says(text, self._settings.question_tokens), *self._closing]

    def prompt(self, question: str) -> list[int]:
        """See `Codec.prompt`."""
        return self.asked(self._start(question, self._settings.question_tokens))

    def asked(self, text: str) -> list[int]:
        """See `Codec.asked`."""
        return self.whole(self._rendered(text))

    def dialogue(self, question: str, answer: str) -> list[int]:
        """See `Codec.dialogue`."""
        encoded = self._says(answer, self._settings.answer_tokens)
        whole = len(encoded) < self._settings.answer_tokens
        return [*self.prompt(question), *encoded, *(self._closing if whole else ())]

    @property
    def ends(self) -> frozenset[int]:
        """See `Codec.ends`."""
        return frozenset(self._chat.ends) or super().ends

    def _rendered(self, text: str) -> str:
        return self._chat.rendered((Message("user", text),), ())

    def _says(self, text: str, length: int) -> list[int]:
        """The tokens of a text where the model says it: tokenizers may begin it differently if
        nothing precedes it."""
        known = self._encoded.get((text, length))
        if known is None:
            start = text[: length * CHARACTERS_PER_TOKEN]
            tokens, before = self.whole(self._before + start), self._before_tokens
            here = tokens[: len(before)] == before
            known = tokens[len(before) :] if here else self.whole(start)
            known = self._encoded[text, length] = known[:length]
        return known

    def _start(self, text: str, length: int) -> str:
        """The text of the first `length` tokens."""
        start = text[: length * CHARACTERS_PER_TOKEN]
        offsets = self._tokenizer.encode(start, add_special_tokens=False).offsets
        return start if len(offsets) <= length else start[: offsets[length - 1][1]]

    def _closed(self, end: int | None) -> list[int]:
        """What the template puts after an answer, up to the first token that ends one."""
        turns = (Message("user", _QUESTION), Message("assistant", _ANSWER))
        try:
            after = self._chat.rendered(turns, ()).rpartition(_ANSWER)[2]
        except InvalidInput:
            after = ""
        tokens = self.whole(after)
        found = (place for place, token in enumerate(tokens) if token in self.ends)
        place = next(found, None)
        if place is not None:
            return tokens[: place + 1]
        return [] if end is None else [end]


def codec_of(tokenizer: Tokenizer, settings: CausalLmConfig, end: int | None, chat: Chat) -> Codec:
    """The codec of a model: with its chat template if that supports a single question."""
    if chat.template is None:
        return Codec(tokenizer, settings, end)
    try:
        return ChatCodec(tokenizer, settings, end, chat)
    except InvalidInput:
        return Codec(tokenizer, settings, end)


def template_tokens(tokenizer: Tokenizer, settings: CausalLmConfig, chat: Chat) -> int:
    """How many tokens a template adds to a text; 0 without one."""
    codec = codec_of(tokenizer, settings, None, chat)
    if not isinstance(codec, ChatCodec):
        return 0
    return max(1, len(codec.answer(_ANSWER)) - len(codec.whole(_ANSWER)))
