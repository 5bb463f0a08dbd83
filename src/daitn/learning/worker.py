"""The process that trains: `python -m daitn.learning.worker --threads N`.

A child of the node, so that training neither holds the node's interpreter nor takes the node
down with it. It reads commands on its standard input and answers on its standard output, both of
which it keeps from the recipes, and ends with the node that started it, however that one ends.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from daitn.learning import registry
from daitn.learning.commands import (
    HEADER,
    Advanced,
    Command,
    Estimate,
    Evaluate,
    Failed,
    Finished,
    Initialise,
    Inspect,
    InspectTest,
    Probe,
    Ready,
    Reply,
    Train,
    framed,
)
from daitn.learning.recipe import Progress, Recipe
from daitn.objects.errors import DaitnError, ErrorReport, WorkFailed
from daitn.objects.wire import encode

__all__ = ["main"]

_OOM_SCORE_ADJ = 500
"""Half of the scale: where memory runs out, Linux ends the worker before the node."""
_MESSAGE_CHARS = 300
"""Of an unforeseen exception's message, which crosses the network."""

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve commands until the node goes away."""
    parser = argparse.ArgumentParser(prog="daitn.learning.worker")
    parser.add_argument("--threads", type=int, required=True)
    threads: int = parser.parse_args().threads
    requests, replies = _claim_streams()
    _end_before_the_node()
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(requests, inbox), daemon=True).start()
    _load_engine(threads)
    _Service(replies).run(inbox)


def _claim_streams() -> tuple[BinaryIO, BinaryIO]:
    """Keep both pipes from the recipes: what they print goes to stderr, what they read is empty."""
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)
    return requests, replies


def _end_before_the_node() -> None:
    """Have the kernel kill us when the thread that started us, the node's event loop, ends."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE_ADJ))


def _receive(requests: BinaryIO, inbox: queue.SimpleQueue[bytes]) -> None:
    """Pass frames on. The end of the input is the end of the node, and so of this process."""
    while len(header := requests.read(HEADER.size)) == HEADER.size:
        (size,) = HEADER.unpack(header)
        inbox.put(requests.read(size))
    os._exit(0)


def _load_engine(threads: int) -> None:
    """Import PyTorch ahead of the first command; a site without it can still run other recipes."""
    with contextlib.suppress(ModuleNotFoundError):
        torch = importlib.import_module("torch")
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)


class _Service:
    """Carries out one command after the other."""

    def __init__(self, replies: BinaryIO) -> None:
        self._replies = replies
        self._recipes: dict[str, Recipe] = {}

    def run(self, inbox: queue.SimpleQueue[bytes]) -> None:
        self._send(Ready())
        decoder = msgspec.msgpack.Decoder(Command)
        while True:
            self._send(self._answer(decoder.decode(inbox.get())))

    def _send(self, reply: Reply) -> None:
        left = memoryview(framed(reply))
        while left:
            left = left[self._replies.write(left) :]

    def _answer(self, command: Command) -> Reply:
        try:
            return Finished(result=msgspec.Raw(encode(self._perform(command))))
        except DaitnError as error:
            return Failed(error=ErrorReport.of(error))
        except Exception as error:
            message = f"{type(error).__name__}: {error}"[:_MESSAGE_CHARS]
            return Failed(
                error=ErrorReport.of(
                    WorkFailed(message, fix="the log of the node that did the work says where")
                ),
                traceback=traceback.format_exc(),
            )

    def _perform(self, command: Command) -> object:
        if isinstance(command, Probe):
            return importlib.import_module("daitn.learning.probe").probe()
        recipe = self._recipe(command.recipe)
        match command:
            case Estimate():
                return recipe.estimate(command.config)
            case Inspect():
                return recipe.inspect(Path(command.data))
            case InspectTest():
                return recipe.inspect_test(Path(command.test))
            case Initialise():
                recipe.initialise(command.config, command.seed, Path(command.out))
                return None
            case Train():
                return _train(recipe, command, self._advance)
            case Evaluate():
                return recipe.evaluate(
                    Path(command.model), command.config, Path(command.test), command.metric
                )

    def _recipe(self, name: str) -> Recipe:
        if name not in self._recipes:
            self._recipes[name] = registry.load(name)
        return self._recipes[name]

    def _advance(self, progress: Progress) -> None:
        self._send(Advanced(progress=progress))


def _train(recipe: Recipe, command: Train, watch: Callable[[Progress], None]) -> object:
    return recipe.train(
        Path(command.model),
        command.config,
        Path(command.data),
        command.examples,
        command.seed,
        Path(command.out),
        watch,
    )


if __name__ == "__main__":
    main()
