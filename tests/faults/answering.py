"""A process that answers in virtual time: what it says to a question shows which piece of which
answer each word is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from daitn.learning.answering.commands import (
    Accepted,
    AnsweringFailed,
    Cancel,
    Command,
    Embed,
    Generate,
    Generated,
    GenerationEnded,
    Load,
    Loaded,
    Reply,
)
from daitn.learning.answering.protocol import Facts, Piece
from daitn.learning.child.outside import ProcessFailed
from daitn.objects.errors import ErrorReport, InvalidInput
from tests.faults.virtual import MACHINE

if TYPE_CHECKING:
    from tests.faults.toy import Laboratory

__all__ = ["VirtualAnswerer", "answer_to"]

_WORDS = 6
_WORD_S = 0.06


def answer_to(question: str) -> list[str]:
    """The pieces of the answer to a question."""
    return [f"{question}.{number} " for number in range(_WORDS)]


class VirtualAnswerer:
    """An `AnsweringProcess`."""

    name = "answering worker"
    pid = 0
    watchers = 0

    def __init__(self, laboratory: Laboratory) -> None:
        self.alive = True
        self._laboratory = laboratory
        self._said: asyncio.Queue[Reply | None] = asyncio.Queue()
        self._answers: dict[int, asyncio.Task[None]] = {}

    async def send(self, command: msgspec.Struct) -> None:
        assert isinstance(command, Command)
        match command:
            case Load():
                await asyncio.sleep(0.5)
                self._said.put_nowait(Loaded(facts=Facts()))
            case Generate():
                self._answers[command.number] = asyncio.create_task(self._answer(command))
            case Cancel():
                if (answering := self._answers.pop(command.number, None)) is not None:
                    answering.cancel()
            case Embed():
                no = ErrorReport.of(InvalidInput("it has no vectors"))
                self._said.put_nowait(AnsweringFailed(number=command.number, error=no))

    async def receive(self) -> Reply:
        said = await self._said.get()
        if said is None:
            self.alive = False
            raise ProcessFailed("the answering worker was killed by the kernel")
        return said

    async def kill(self) -> None:
        self.alive = False
        for answering in self._answers.values():
            answering.cancel()

    async def _answer(self, asked: Generate) -> None:
        lab, number, machine = self._laboratory, asked.number, MACHINE.get()
        assert machine is not None
        came_s, text = machine.loop.time(), asked.question.messages[-1].content
        lab.examined.came(machine.name, text, came_s)
        self._said.put_nowait(Accepted(number=number, tokens=3, most_tokens=100))
        await asyncio.sleep(_WORD_S)
        for word in lab.examined.words(machine.name, text, came_s) or answer_to(text):
            await asyncio.sleep(_WORD_S)
            if lab.rng.random() < lab.dies:
                self._said.put_nowait(None)
                return
            self._said.put_nowait(Generated(number=number, piece=Piece(word, 0.0)))
        self._said.put_nowait(GenerationEnded(number=number))
