"""The process that trains: `python -m daitn.learning.worker --threads N`.

A child of the node, so that training neither holds the node's interpreter nor takes the node
down with it. It reads commands on its standard input and answers on its standard output, both of
which it keeps from the recipes, and ends with the node that started it, however that one ends.

It imports what recipes compute with, and runs none: each command is carried out by a confined
process of its own, a `VisitProcess`, which is there at once as it is a copy of this one.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping

import msgspec

from daitn.learning import registry
from daitn.learning.child.ending import ending
from daitn.learning.child.frames import HEADER, REST_OF_FRAME_WITHIN_S, FrameReader, Ready
from daitn.learning.child.inside import Started, load_engine, send, start
from daitn.learning.child.visits import VisitProcess, become, ready_to_fork
from daitn.learning.commands import (
    Advanced,
    Command,
    CompressUpdate,
    Evaluate,
    ExportModel,
    ImportModel,
    Initialise,
    Inspect,
    InspectTest,
    Kept,
    MergeModels,
    ProbeSpeed,
    RebuildWeights,
    Reply,
    Task,
    Train,
    WorkerFailed,
    WorkerFinished,
)
from daitn.learning.recipe import Recipe
from daitn.learning.sandbox.limits import LOOK_EVERY_S, exceeded
from daitn.learning.sandbox.linked import with_links
from daitn.learning.service import Service
from daitn.objects.errors import DaitnError, ErrorReport, WorkFailed

__all__ = ["Worker", "main"]

_OF_OPTIMISERS = "torch._dynamo"
"""Imports of PyTorch with the first optimiser, which take seconds."""
_OURS = ("boosted-trees", "causal-lm", "classifier")
"""Our own recipes: they are imported ahead."""
_MOST_AT_ONCE = 1 << 16
_TAIL_BYTES = 4096


_ENGINES = (
    "accelerate",
    "bitsandbytes",
    "daitn",
    "huggingface_hub",
    "jinja2",
    "numpy",
    "peft",
    "pyarrow",
    "safetensors",
    "sympy",
    "tokenizers",
    "torch",
    "transformers",
)
"""Engines of our recipes. Many take seconds to import, and are imported only when a visit needs
them; then also for the next one."""


class _Imported(msgspec.Struct, frozen=True, kw_only=True, tag="imported"):
    """A visit's report to its worker: what it had to import of `_ENGINES`."""

    modules: tuple[str, ...]


def main() -> None:
    """Serve commands until the node disconnects."""
    started = start("daitn.learning.worker")

    def work() -> None:
        if started.engine:
            load_engine(started.threads)
        ours: dict[str, Recipe] = {}
        for name in _OURS:
            with contextlib.suppress(DaitnError):
                ours[name] = registry.load(name)
        Worker(started, ours).run()

    become(started.confinement, work, (started.requests, started.replies), confined=False)


class Worker:
    """Has commands carried out one after another, each by a visit."""

    def __init__(self, started: Started, ours: Mapping[str, Recipe]) -> None:
        """`ours`: recipes that visits find loaded."""
        self._ours = ours
        self._started = started
        self._decoder: msgspec.msgpack.Decoder[Reply | _Imported] = msgspec.msgpack.Decoder(
            Reply | _Imported
        )
        self._wanted: tuple[str, ...] = ()

    def run(self) -> None:
        ready_to_fork()
        self._send(Ready())
        requests = self._started.requests
        while len(header := requests.read(HEADER.size)) == HEADER.size:
            (size,) = HEADER.unpack(header)
            task = msgspec.msgpack.decode(requests.read(size), type=Task)
            if _optimises(task.command) and "torch" in sys.modules:
                self._import((_OF_OPTIMISERS,))
            self._send(self._carried_out(task))
            # The node need not wait until the next visit has imported what this one did.
            self._import(self._wanted)
            self._wanted = ()
        os._exit(0)

    def _send(self, reply: Reply) -> None:
        send(self._started.replies, reply)

    def _carried_out(self, task: Task) -> Reply:
        scratch = tempfile.mkdtemp(dir=self._started.confinement.scratch)
        readable, writable = _paths(task.command)
        confinement = msgspec.structs.replace(
            self._started.confinement,
            scratch=scratch,
            readable=readable,
            writable=writable,
            limits=task.limits,
        )
        try:
            visit = VisitProcess(confinement, lambda answers: self._visit(task, answers))
        except OSError as error:
            return _failed(f"could not begin: {error.strerror or error}")
        try:
            return self._followed(task, visit)
        finally:
            visit.close()
            with contextlib.suppress(OSError, RecursionError):
                shutil.rmtree(scratch)

    def _visit(self, task: Task, answers: int) -> None:
        """Runs in the visit's own process."""
        before = set(sys.modules)
        with os.fdopen(answers, "wb", buffering=0) as replies:
            service = Service(replies, task.limits, self._ours)
            final = service.answer(task.command)
            if _is_ours(task.command, self._ours):
                new = sorted(name for name in set(sys.modules) - before if _is_engine(name))
                send(replies, _Imported(modules=tuple(new)))
            send(replies, final)

    def _followed(self, task: Task, visit: VisitProcess) -> Reply:
        """Pass on its messages until it has answered, and end it."""
        frames, printed = FrameReader(), bytearray()
        replied_s = looked_s = time.monotonic()
        watched = select.poll()
        watched.register(self._started.requests, 0)  # Tells when the node is gone.
        watched.register(visit.replies, select.POLLIN)
        watched.register(visit.prints, select.POLLIN)
        while True:
            events = dict(watched.poll(LOOK_EVERY_S * 1000.0))
            now_s = time.monotonic()
            if self._started.requests.fileno() in events:
                visit.end()
                os._exit(0)
            if visit.prints in events and not _print(visit.prints, printed):
                watched.unregister(visit.prints)
            if visit.replies in events:
                data = os.read(visit.replies, _MOST_AT_ONCE)
                if not data:
                    return _ended(visit, printed)
                replied_s = now_s
                try:
                    final = self._pass_on(task, frames.feed(data))
                except (msgspec.DecodeError, ValueError) as error:
                    visit.end()
                    return _failed("sent a malformed reply", str(error))
                if final is not None:
                    over = visit.exceeded(at_files=True)
                    visit.end()
                    _print(visit.prints, printed)
                    return final if over is None else _over(over)
            if frames.amid and now_s - replied_s > REST_OF_FRAME_WITHIN_S:
                visit.end()
                return _failed("began a reply and did not end it")
            if now_s - looked_s >= LOOK_EVERY_S:
                looked_s = now_s
                if (over := visit.exceeded()) is not None:
                    visit.end()
                    return _over(over)

    def _pass_on(self, task: Task, frames: Iterable[bytes]) -> Reply | None:
        """The task's answer, once it arrived; later frames are ignored.

        A recipe runs where these frames come from. So only our own recipes say what to import, and
        nobody there decides which words count as the worker's.
        """
        for frame in frames:
            match self._decoder.decode(frame):
                case Advanced() | Kept() as message:
                    self._send(message)
                case _Imported() if not _is_ours(task.command, self._ours):
                    raise ValueError("another recipe's visit imports nothing for others")
                case _Imported(modules=modules):
                    self._wanted = tuple(name for name in modules if _is_engine(name))
                case Ready():
                    raise ValueError("it is ready, at work")
                case WorkerFailed(by_recipe=False, error=error):
                    if error.field in task.limits.__struct_fields__:
                        return _over(exceeded(task.limits, error.field))
                    return _failed("failed")
                case WorkerFinished() | WorkerFailed() as final:
                    return final
        return None

    def _import(self, modules: Iterable[str]) -> None:
        """Import these for later visits."""
        missing = [name for name in modules if name not in sys.modules]
        for name in missing:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        if missing:
            ready_to_fork()


def _optimises(command: Command) -> bool:
    return isinstance(command, ProbeSpeed) or (
        isinstance(command, Train) and command.recipe in _OURS
    )


def _is_ours(command: Command, ours: Mapping[str, Recipe]) -> bool:
    return getattr(command, "recipe", "") in ("", *ours)


def _is_engine(module: str) -> bool:
    return module.partition(".")[0] in _ENGINES


def _paths(command: Command) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The paths that a command reads, and the folders that it writes."""
    match command:
        case Inspect(data=data):
            return (data,), ()
        case InspectTest(test=test):
            return (test,), ()
        case Initialise(out=out):
            return (), (out,)
        case ImportModel(folder=folder, out=out):
            return with_links(folder), (out,)
        case ExportModel(model=model, out=out):
            return with_links(model), (out,)
        case Train(model=model, data=data, out=out, saving=saving, local=local):
            kept = () if saving is None else (saving.folder,)
            own = with_links(local.own) if local.own else ()
            return (*with_links(model), *own, data), (out, *kept)
        case MergeModels(task=task, out=out, moments=moments):
            folders = dict.fromkeys((task.base, *task.models, *task.starts))
            models = [path for model in folders for path in with_links(model)]
            before = (task.moments,) if task.moments else ()
            return (*models, *before), (out, os.path.dirname(moments))
        case CompressUpdate(base=base, trained=trained, before=lost, left=left):
            earlier = (lost,) if lost else ()
            return (*with_links(base), *earlier), (trained, os.path.dirname(left))
        case RebuildWeights(base=base, update=update, out=out):
            return (*with_links(base), *with_links(update)), (out,)
        case Evaluate(model=model, test=test):
            return (*with_links(model), test), ()
        case _:
            return (), ()


def _print(descriptor: int, kept: bytearray) -> bool:
    """Copy a visit's output, and remember the end of it; returns whether more may come."""
    data = os.read(descriptor, _MOST_AT_ONCE)
    with contextlib.suppress(OSError):
        os.write(2, data)
    kept += data
    del kept[:-_TAIL_BYTES]
    return bool(data)


def _ended(visit: VisitProcess, printed: bytearray) -> WorkerFailed:
    """Error of a visit that closed its replies without an answer."""
    code = visit.leave()
    while _print(visit.prints, printed):
        pass
    how = "closed its output" if code is None else ending(code)
    return _failed(how, printed.decode(errors="replace"))


def _over(limit: DaitnError) -> WorkerFailed:
    """Error of a visit that was ended at a limit."""
    return WorkerFailed(error=ErrorReport.inside(limit), by_recipe=False)


def _failed(how: str, last_words: str = "") -> WorkerFailed:
    error = WorkFailed(
        f"the training worker {how}",
        fix="see the log of the node that did the work; the next piece of work gets a new worker",
    )
    # The details stay in that log: they may reveal a record.
    return WorkerFailed(
        error=ErrorReport.inside(error),
        by_recipe=False,
        traceback=f"{how}; {last_words or '(none)'}",
    )


if __name__ == "__main__":
    main()
