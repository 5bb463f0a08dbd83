"""The answering process: `python -m daitn.learning.answering.worker --threads N`.

Answers take turns, one piece each, so that a short one does not wait for a long one to end.
Embeddings take turns with a few texts each time.
"""

from __future__ import annotations

import queue
import sys
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
    LoadModel,
    Reply,
    UnloadModel,
)
from daitn.learning.answering.protocol import Answering, Generator, Piece
from daitn.learning.child.frames import Ready
from daitn.learning.child.inside import error_report, send, serve
from daitn.objects.errors import DaitnError, NotFound

__all__ = ["main"]

_TEXTS_PER_TURN = 16
"""Texts embedded at once: bounds the memory, and the others' wait for their turn (30 ms for the
default `causal-lm` on two processors)."""


def main() -> None:
    """Serve commands until the node disconnects."""
    serve("daitn.learning.answering.worker", lambda replies, inbox: _Service(replies).run(inbox))


class _Service:
    """Loaded models, and the answers in progress."""

    def __init__(self, replies: BinaryIO) -> None:
        self._replies = replies
        self._speakers: dict[str, Generator] = {}
        self._answers: dict[int, Iterator[Generated | Embeddings | None]] = {}

    def run(self, inbox: queue.SimpleQueue[bytes]) -> None:
        self._send(Ready())
        decoder = msgspec.msgpack.Decoder(Command)
        while True:
            while not inbox.empty() or not self._answers:
                self._carry_out(decoder.decode(inbox.get()))
            for number in tuple(self._answers):
                self._step(number)

    def _send(self, reply: Reply) -> None:
        send(self._replies, reply)

    def _carry_out(self, command: Command) -> None:
        if isinstance(command, UnloadModel):
            self._speakers.pop(command.name, None)
        elif isinstance(command, Cancel):
            self._answers.pop(command.number, None)
        else:
            try:
                self._answer(command)
            except Exception as error:
                self._fail(command.number, error)

    def _answer(self, command: LoadModel | Generate | Embed) -> None:
        if isinstance(command, LoadModel):
            recipe = registry.load(command.recipe)
            if not isinstance(recipe, Answering):
                raise NotFound(f"models of recipe {command.recipe} do not answer", field="recipe")
            self._speakers[command.name] = recipe.open(Path(command.model), command.config)
            self._send(GenerationEnded(number=command.number))
            return
        speaker = self._speakers.get(command.name)
        if speaker is None:
            raise NotFound(f"{command.name} is not loaded", field="model")
        if isinstance(command, Embed):
            self._answers[command.number] = _embedded(command, speaker)
            return
        question = command.question
        most = min(question.max_tokens, speaker.most_tokens)
        tokens = speaker.length(question)
        self._send(Accepted(number=command.number, tokens=tokens, most_tokens=most))
        self._answers[command.number] = _said(command.number, speaker.answer(question))

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
        if not isinstance(error, DaitnError):
            # For the node's own log; it never leaves the site.
            sys.stderr.write(traceback.format_exc())
        self._send(AnsweringFailed(number=number, error=error_report(error)))


def _said(number: int, pieces: Iterator[Piece]) -> Iterator[Generated]:
    for piece in pieces:
        yield Generated(number=number, piece=piece)


def _embedded(command: Embed, speaker: Generator) -> Iterator[Embeddings | None]:
    """Yields nothing after each turn but the last."""
    texts: Sequence[str] = command.texts
    vectors: list[list[float]] = []
    for start in range(0, len(texts), _TEXTS_PER_TURN):
        vectors += speaker.embed(texts[start : start + _TEXTS_PER_TURN])
        yield None
    yield Embeddings(number=command.number, vectors=vectors)


if __name__ == "__main__":
    main()
