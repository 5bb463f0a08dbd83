"""One hosted model as seen by its node: a separate process, watched, and replaced if it ends."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from daitn.learning.answering.commands import (
    Accepted,
    AnsweringFailed,
    Cancel,
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
from daitn.learning.answering.protocol import Facts, Piece, Question
from daitn.learning.child.outside import ChildProcess
from daitn.learning.pulse import MOST_SILENT_S, Pulse, processor_s
from daitn.objects.errors import DaitnError, ErrorReport, InvalidInput, WorkFailed

__all__ = ["AnsweringProcess", "Generation", "HostedModel"]

_log = logging.getLogger(__name__)

RESTART_PAUSE_S, _MOST_RESTART_PAUSE_S = 1.0, 300.0
"""Pause between a process's end and the next start; it doubles while the model cannot be loaded
again, which may take a machine's disk and memory."""
_STEP_WITHIN_S = 300.0
"""No step of an answer takes this long, whatever processor time it uses."""

_Answer = Accepted | Generated | GenerationEnded | Embeddings | AnsweringFailed
_Replies = asyncio.Queue[_Answer]


class AnsweringProcess(ChildProcess[Reply]):
    """A process that can load a model; created by `start`."""

    name = "answering worker"
    module = "daitn.learning.answering.worker"
    replies = Reply
    watchers = 2
    """Generations of processes that run no recipe, but watch the one that does."""


@dataclass(frozen=True)
class Generation:
    """An answer in progress."""

    tokens_in: int
    """Length of the question."""
    most_tokens: int
    """Maximum length of the answer."""
    pieces: AsyncIterator[Piece]
    """Close it, or leave its loop, to cancel the answer."""


class HostedModel:
    """A loaded model that answers many questions concurrently.

    If its process ends or stalls, answers in progress raise `WorkFailed`, and another process loads
    it again. Its folder must stay until it is closed.
    """

    def __init__(
        self, load: Load, start: Callable[[], Awaitable[AnsweringProcess]], *, stall_s: float
    ) -> None:
        """`stall_s`: how long its process may neither reply nor use a processor while it is
        awaited."""
        self._load = load
        self._start = start
        self._stall_s = stall_s
        self._replied = False
        """Whether its process has sent something since the last check."""
        self._waiting: dict[int, _Replies] = {}
        self._numbers = itertools.count(1)
        self._process: AnsweringProcess | None = None
        self._settled = asyncio.Event()
        """Set unless a process is about to start."""
        self._running: asyncio.Task[None] | None = None
        self.facts = Facts()
        """Its facts, once it is open."""

    async def open(self) -> None:
        """Load it. Raises what its recipe raises, and `WorkFailed`."""
        self._process = await self._brought_up()
        self._settled.set()
        self._running = asyncio.create_task(self._run(), name="answering")

    async def close(self) -> None:
        """End its process; answers in progress fail."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        process, self._process = self._process, None
        if process is not None:
            await process.kill()
        self._fail_all()
        self._settled.set()  # Wakes those who wait for a process, to tell them: there is none.

    @property
    def pid(self) -> int:
        """Process id; 0 while there is no process."""
        return 0 if self._process is None or not self._process.alive else self._process.pid

    async def ask(self, question: Question) -> Generation:
        """See `AnsweringHost.ask`."""
        number, replies = await self._sent(lambda n: Generate(number=n, question=question))
        try:
            accepted = await _next(replies)
            assert isinstance(accepted, Accepted)
        except BaseException:
            await self._forget(number)
            raise
        return Generation(accepted.tokens, accepted.most_tokens, self._pieces(number, replies))

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """See `AnsweringHost.embed`."""
        number, replies = await self._sent(lambda n: Embed(number=n, texts=tuple(texts)))
        try:
            embedded = await _next(replies)
            assert isinstance(embedded, Embeddings)
        except BaseException:
            await self._forget(number)
            raise
        self._waiting.pop(number, None)
        return embedded.vectors

    async def _pieces(self, number: int, replies: _Replies) -> AsyncIterator[Piece]:
        ended = False
        try:
            while True:
                reply = await _next(replies)
                if isinstance(reply, GenerationEnded):
                    ended = True
                    return
                assert isinstance(reply, Generated)
                yield reply.piece
        except DaitnError:
            ended = True
            raise
        finally:
            if ended:
                self._waiting.pop(number, None)
            else:
                await self._forget(number)

    async def _sent(self, command: Callable[[int], Generate | Embed]) -> tuple[int, _Replies]:
        await self._settled.wait()
        process = self._process
        if process is None:
            raise WorkFailed("this model has stopped answering", fix="query another deployment")
        number, replies = next(self._numbers), _Replies()
        self._waiting[number] = replies
        try:
            await process.send(command(number))
        except ValueError as error:
            del self._waiting[number]
            raise InvalidInput(str(error), fix="ask for less at once") from None
        except asyncio.CancelledError:
            await self._forget(number)
            raise
        return number, replies

    async def _forget(self, number: int) -> None:
        if self._waiting.pop(number, None) is not None and self._process is not None:
            await self._process.send(Cancel(number=number))

    async def _brought_up(self) -> AnsweringProcess:
        """A process with the model loaded."""
        process = await self._start()
        try:
            async with self._watched(process, lambda: True, MOST_SILENT_S):
                await process.send(self._load)
                reply = await process.receive()
            if isinstance(reply, AnsweringFailed):
                raise reply.error.error()
            if not isinstance(reply, Loaded):
                raise WorkFailed("the answering worker sent an unexpected message")
            self.facts = reply.facts
        except BaseException:
            await process.kill()
            raise
        return process

    async def _run(self) -> None:
        while (process := self._process) is not None:
            try:
                async with self._watched(process, lambda: bool(self._waiting), _STEP_WITHIN_S):
                    while True:
                        self._pass_on(await process.receive())
            except WorkFailed as error:
                _log.error("%s", error)
            except Exception:
                _log.exception("the answering worker is replaced")
            # A process whose messages nobody can read is useless.
            await process.kill()
            self._process = None
            self._settled.clear()
            self._fail_all()
            self._process = await self._replaced()
            self._settled.set()

    async def _replaced(self) -> AnsweringProcess:
        for attempt in itertools.count():
            await asyncio.sleep(min(RESTART_PAUSE_S * 2.0**attempt, _MOST_RESTART_PAUSE_S))
            try:
                return await self._brought_up()
            except (DaitnError, OSError) as error:
                _log.error("a model cannot be loaded again: %s", error)
            except Exception:
                _log.exception("a model cannot be loaded again")
            # Requests that arrive meanwhile fail at once instead of waiting for the next attempt.
            self._settled.set()
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def _watched(
        self, process: AnsweringProcess, awaited: Callable[[], bool], silent_s: float
    ) -> AsyncIterator[None]:
        """Kill a process that stalls while it is awaited."""
        watching = asyncio.create_task(
            self._watch(process, awaited, silent_s), name=f"pulse of {process.name} {process.pid}"
        )
        try:
            yield
        finally:
            watching.cancel()

    async def _watch(
        self, process: AnsweringProcess, awaited: Callable[[], bool], silent_s: float
    ) -> None:
        pulse = Pulse(time.monotonic(), 0.0, stall_s=self._stall_s, silent_s=silent_s)
        while True:
            await asyncio.sleep(pulse.every_s)
            if self._replied or not awaited():
                self._replied = False
                pulse.progressed()
                continue
            used_s = await asyncio.to_thread(processor_s, process.pid, below=process.watchers)
            if stalled := pulse.check(time.monotonic(), used_s):
                _log.error("killing the %s %d: it %s", process.name, process.pid, stalled)
                await process.kill()
                return

    def _pass_on(self, reply: Reply) -> None:
        self._replied = True
        if isinstance(reply, _Answer) and (replies := self._waiting.get(reply.number)):
            replies.put_nowait(reply)
        elif not isinstance(reply, _Answer | Working):
            raise WorkFailed("the answering worker reported twice that it was ready")

    def _fail_all(self) -> None:
        lost = ErrorReport(
            code=WorkFailed.__name__,
            problem="the answering worker ended during a query",
            fix="ask again",
        )
        waiting, self._waiting = self._waiting, {}
        for number, replies in waiting.items():
            replies.put_nowait(AnsweringFailed(number=number, error=lost))


async def _next(replies: _Replies) -> Accepted | Generated | GenerationEnded | Embeddings:
    reply = await replies.get()
    if isinstance(reply, AnsweringFailed):
        raise reply.error.error()
    return reply
