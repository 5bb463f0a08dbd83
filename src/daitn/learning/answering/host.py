"""Answers for the node's event loop: one worker process with all models that the site hosts."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from daitn.learning.answering.commands import (
    Accepted,
    AnsweringFailed,
    Cancel,
    Embed,
    Embeddings,
    Generate,
    Generated,
    GenerationEnded,
    LoadModel,
    Reply,
    UnloadModel,
)
from daitn.learning.answering.protocol import Piece, Question
from daitn.learning.child.frames import Ready
from daitn.learning.child.outside import ChildProcess
from daitn.learning.recipe import Config
from daitn.learning.sandbox.policy import Limits, Sandbox
from daitn.learning.sandbox.probe import fences
from daitn.objects.errors import DaitnError, ErrorReport, InvalidInput, WorkFailed

__all__ = ["AnsweringHost", "Generation"]

_log = logging.getLogger(__name__)

_Replies = asyncio.Queue[Accepted | Generated | GenerationEnded | Embeddings | AnsweringFailed]
_Numbered = Callable[[int], Generate | Embed | LoadModel]
"""Makes a command from its number."""

_ALL_THERE_IS = Sandbox()
RESTART_PAUSE_S = 1.0
"""Pause between a worker's end and the next start, so that a worker that keeps dying does not
consume the machine."""
SILENT_S = 300.0
"""A worker that is awaited and sends nothing for this long hangs: neither loading a model nor any
step of an answer takes as long."""


class _Worker(ChildProcess[Reply]):
    name = "answering worker"
    module = "daitn.learning.answering.worker"
    replies = Reply


@dataclass(frozen=True)
class _Loaded:
    name: str
    recipe: str
    model: Path
    config: Config

    def command(self, number: int) -> LoadModel:
        return LoadModel(
            number=number,
            name=self.name,
            recipe=self.recipe,
            model=str(self.model),
            config=dict(self.config),
        )


@dataclass(frozen=True)
class Generation:
    """An answer in progress."""

    tokens_in: int
    """Length of the question."""
    most_tokens: int
    """Maximum length of the answer."""
    pieces: AsyncIterator[Piece]
    """Close it, or leave its loop, to cancel the answer."""


class AnsweringHost:
    """Loads models and lets them answer, many questions at once.

    If the worker dies or hangs, answers in progress raise `WorkFailed`, and a new worker starts
    with the same models. The folders of loaded models must stay until they are unloaded.
    """

    def __init__(
        self,
        *,
        threads: int,
        models: Path,
        silent_s: float = SILENT_S,
        sandbox: Sandbox = _ALL_THERE_IS,
    ) -> None:
        """`models`: the folder with those that it will be asked to load, the only data that it may
        read. `silent_s`: silence after which the worker counts as hanging. `sandbox`: what it runs
        in."""
        self._sandbox = sandbox
        self._models = models
        self._threads = threads
        self._silent_s = silent_s
        self._heard_s = 0.0
        """When the worker last sent something, or began to be awaited."""
        self._loaded: dict[str, _Loaded] = {}
        self._waiting: dict[int, _Replies] = {}
        self._numbers = itertools.count()
        self._worker: _Worker | None = None
        self._up = asyncio.Event()
        self._starting = asyncio.Lock()
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start a worker, and a new one whenever it dies. Starting twice is harmless.

        Raises `WorkFailed` if none starts.
        """
        async with self._starting:
            if self._running is None:
                self._worker = await self._new_worker()
                self._up.set()
                self._running = asyncio.create_task(self._run(self._worker), name="answering")

    async def close(self) -> None:
        """End the worker; answers in progress fail."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.kill()
        self._fail_all()
        self._up.set()  # Wakes those who wait for a worker, to tell them that there will be none.

    @property
    def pid(self) -> int:
        """Process id of the worker; 0 while there is none."""
        return 0 if self._worker is None or not self._worker.alive else self._worker.pid

    async def load(self, name: str, recipe: str, model: Path, config: Config) -> None:
        """Load the model in the folder `model`. Raises what the recipe raises, and `WorkFailed`."""
        loaded = _Loaded(name, recipe, model, config)
        number, replies = await self._sent(loaded.command)
        try:
            await _next(replies)
        except BaseException:
            # It may be loaded by now, and nobody would ever unload it.
            await self.unload(name)
            raise
        finally:
            self._waiting.pop(number, None)
        self._loaded[name] = loaded

    async def unload(self, name: str) -> None:
        """Unload a model."""
        self._loaded.pop(name, None)
        if self._worker is not None:
            await self._worker.send(UnloadModel(name=name))

    async def ask(self, name: str, question: Question) -> Generation:
        """Ask a model.

        Raises what the recipe raises, `WorkFailed`, and `InvalidInput` for a question that is too
        long to pass to the worker.
        """
        number, replies = await self._sent(
            lambda n: Generate(number=n, name=name, question=question)
        )
        try:
            heard = await _next(replies)
            assert isinstance(heard, Accepted)
        except BaseException:
            await self._forget(number)
            raise
        return Generation(heard.tokens, heard.most_tokens, self._pieces(number, replies))

    async def embed(self, name: str, texts: Sequence[str]) -> list[list[float]]:
        """One vector per text. Raises as `ask` does."""
        number, replies = await self._sent(lambda n: Embed(number=n, name=name, texts=tuple(texts)))
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

    async def _sent(self, command: _Numbered) -> tuple[int, _Replies]:
        await self._up.wait()
        worker = self._worker
        if worker is None:
            raise WorkFailed("this site has stopped answering", fix="ask elsewhere")
        number, replies = next(self._numbers), _Replies()
        if not self._waiting:
            self._heard_s = time.monotonic()
        self._waiting[number] = replies
        try:
            await worker.send(command(number))
        except ValueError as error:
            del self._waiting[number]
            raise InvalidInput(str(error), fix="ask for less at once") from None
        except asyncio.CancelledError:
            await self._forget(number)
            raise
        return number, replies

    async def _forget(self, number: int) -> None:
        if self._waiting.pop(number, None) is not None and self._worker is not None:
            await self._worker.send(Cancel(number=number))

    async def _run(self, worker: _Worker) -> None:
        while True:
            watching = asyncio.create_task(self._watch(worker), name="answering worker's watch")
            try:
                while True:
                    self._pass_on(await worker.receive())
            except WorkFailed as error:
                _log.error("%s", error)
            except Exception:
                # A worker that says what nobody can read is as good as none.
                _log.exception("the answering worker is replaced")
                await worker.kill()
            finally:
                watching.cancel()
            self._worker = None
            self._up.clear()
            self._fail_all()
            worker = await self._restarted()

    async def _watch(self, worker: _Worker) -> None:
        """Kill a worker that hangs."""
        while True:
            await asyncio.sleep(self._silent_s / 4)
            silent_s = time.monotonic() - self._heard_s
            if self._waiting and silent_s > self._silent_s:
                _log.error("the answering worker sent nothing for %.0f s: it hangs", silent_s)
                await worker.kill()
                return

    async def _new_worker(self) -> _Worker:
        return await _Worker.start(
            self._threads,
            await fences(self._sandbox),
            readable=(str(self._models),),
            limits=Limits(memory_bytes=self._sandbox.limits.memory_bytes),
            folder=self._sandbox.folder,
        )

    async def _restarted(self) -> _Worker:
        while True:
            await asyncio.sleep(RESTART_PAUSE_S)
            try:
                worker = await self._new_worker()
                break
            except (WorkFailed, OSError) as error:
                _log.error("no answering worker: %s", error)
            except Exception:
                _log.exception("no answering worker")
        for loaded in tuple(self._loaded.values()):
            # Before any waiting question: the worker takes commands in order.
            await worker.send(loaded.command(next(self._numbers)))
        self._worker = worker
        self._heard_s = time.monotonic()
        self._up.set()
        return worker

    def _pass_on(self, reply: Reply) -> None:
        self._heard_s = time.monotonic()
        if isinstance(reply, Ready):
            return
        replies = self._waiting.get(reply.number)
        if replies is not None:
            replies.put_nowait(reply)
        elif isinstance(reply, AnsweringFailed):
            _log.error("the answering worker: %s", reply.error.problem)

    def _fail_all(self) -> None:
        lost = ErrorReport(
            code=WorkFailed.__name__,
            problem="the answering worker ended while it was at work",
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
