"""The process of one hosted model: `python -m daitn.learning.answering.worker --threads N`.

Answers take turns, one piece each, so that a short one does not wait for a long one to end.
Embeddings take turns with a few texts each time.
"""

from __future__ import annotations

import itertools
import queue
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from daitn.learning import registry
from daitn.learning.answering.commands import (
    Accepted,
    AnsweringFailed,
    Cancel,
    Command,
    Embed,
    Embeddings,
    Generate,
    Generated,
    GenerationEnded,
    Load,
    Loaded,
    Reply,
    Working,
)
from daitn.learning.answering.protocol import (
    Answering,
    Describing,
    Facts,
    Generator,
    Hosting,
    Piece,
)
from daitn.learning.child.frames import Ready
from daitn.learning.child.inside import error_report, send, serve
from daitn.objects.errors import ContextExceeded, DaitnError, ErrorReport, NotFound, QuestionFailed

__all__ = ["main"]

_TEXTS_PER_TURN = 16
"""Texts embedded at once: bounds the memory, and the others' wait for their turn (30 ms for the
default `causal-lm` on two processors)."""
_CHARS_PER_TURN = 16_000
"""Likewise for long texts: some 4,000 tokens, like a step of a large model."""
_SILENT_S = 0.25
"""A step without output is reported after this long: the node takes silence for a hang."""


def main() -> None:
    """Serve commands until the node disconnects. The model's recipe imports the engine that it
    needs, if any."""
    serve(
        "daitn.learning.answering.worker",
        lambda replies, inbox: _Service(replies).run(inbox),
        engine=False,
    )


class _Service:
    """The loaded model, and the answers in progress."""

    def __init__(self, replies: BinaryIO) -> None:
        self._replies = replies
        self._generator: Generator | None = None
        self._facts = Facts()
        self._answers: dict[int, Iterator[Reply | None]] = {}
        self._sent_s = 0.0

    def run(self, inbox: queue.SimpleQueue[bytes]) -> None:
        self._send(Ready())
        decoder = msgspec.msgpack.Decoder(Command)
        while True:
            while not inbox.empty() or not self._answers:
                self._carry_out(decoder.decode(inbox.get()))
            for number in tuple(self._answers):
                self._step(number)
            if time.monotonic() - self._sent_s > _SILENT_S:
                self._send(Working())

    def _send(self, reply: Reply) -> None:
        send(self._replies, reply)
        self._sent_s = time.monotonic()

    def _carry_out(self, command: Command) -> None:
        if isinstance(command, Cancel):
            self._answers.pop(command.number, None)
            return
        try:
            self._begin(command)
        except Exception as error:
            self._fail(command.number, error)

    def _begin(self, command: Load | Generate | Embed) -> None:
        if isinstance(command, Load):
            recipe = registry.load(command.recipe)
            if not isinstance(recipe, Answering):
                raise NotFound(f"models of recipe {command.recipe} do not answer", field="recipe")
            model = Path(command.model)
            self._generator = (
                recipe.host(model, command.config, command.room)
                if isinstance(recipe, Hosting)
                else recipe.open(model, command.config)
            )
            if isinstance(self._generator, Describing):
                self._facts = self._generator.facts
            self._send(Loaded(facts=self._facts))
            return
        generator = self._generator
        assert generator is not None, "the node loads the model first"
        if isinstance(command, Embed):
            self._answers[command.number] = _embedded(command, generator)
            return
        question = command.question
        tokens = generator.length(question)
        context = self._facts.context_tokens
        if tokens >= context:
            raise ContextExceeded(
                f"this model's maximum context length is {context} tokens, and the prompt has "
                f"{tokens}",
                field="messages",
                fix="shorten it",
            )
        most = min(generator.most_tokens, context - tokens)
        if question.max_tokens is not None:
            most = min(most, question.max_tokens)
        question = msgspec.structs.replace(question, max_tokens=most)
        self._send(Accepted(number=command.number, tokens=tokens, most_tokens=most))
        self._answers[command.number] = _generated(command.number, generator.answer(question))

    def _step(self, number: int) -> None:
        try:
            reply = next(self._answers[number], GenerationEnded(number=number))
            if reply is not None:
                self._send(reply)
        except Exception as error:
            del self._answers[number]
            self._fail(number, error)
            return
        if isinstance(reply, GenerationEnded | Embeddings):
            del self._answers[number]

    def _fail(self, number: int, error: Exception) -> None:
        if isinstance(error, DaitnError):
            report = error_report(error)
        else:
            # For the node's own log; it never leaves the site.
            sys.stderr.write(traceback.format_exc())
            failed = QuestionFailed(
                f"the model failed at this question: {type(error).__name__}",
                fix="see the log of the facility",
            )
            report = ErrorReport.inside(failed)
        self._send(AnsweringFailed(number=number, error=report))


def _generated(number: int, pieces: Iterator[Piece | None]) -> Iterator[Generated | None]:
    for piece in pieces:
        yield None if piece is None else Generated(number=number, piece=piece)


def _embedded(command: Embed, generator: Generator) -> Iterator[Embeddings | None]:
    """Yields nothing after each turn except the last."""
    texts: Sequence[str] = command.texts
    vectors: list[list[float]] = []
    while len(vectors) < len(texts):
        start = len(vectors)
        vectors += generator.embed(_one_turn(texts[start : start + _TEXTS_PER_TURN]))
        yield None
    yield Embeddings(number=command.number, vectors=vectors)


def _one_turn(texts: Sequence[str]) -> Sequence[str]:
    """At least one of these texts."""
    lengths = itertools.accumulate(map(len, texts))
    return texts[: max(1, sum(length <= _CHARS_PER_TURN for length in lengths))]


if __name__ == "__main__":
    main()
