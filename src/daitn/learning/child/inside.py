"""What every child process does first, and how it communicates with its node."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import queue
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

import msgspec

from daitn.learning.child.frames import HEADER, framed
from daitn.learning.child.visits import become
from daitn.learning.sandbox.kernel import end_first, end_with_parent
from daitn.learning.sandbox.policy import Confinement
from daitn.objects.errors import DaitnError, ErrorReport, WorkFailed

__all__ = ["Started", "error_report", "load_engine", "send", "serve", "start"]


def _claim_streams() -> tuple[BinaryIO, BinaryIO]:
    """Keep both pipes from the recipes: their output goes to stderr, their input is empty."""
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
    """End when the thread that started us, the node's event loop, ends, or first if memory runs
    out."""
    end_with_parent()
    end_first()


def _receive(requests: BinaryIO, inbox: queue.SimpleQueue[bytes]) -> None:
    """Pass frames on. The end of the input is the end of the node, and thus of this process."""
    while len(header := requests.read(HEADER.size)) == HEADER.size:
        (size,) = HEADER.unpack(header)
        inbox.put(requests.read(size))
    os._exit(0)


def load_engine(threads: int) -> None:
    """Import PyTorch; a site without it can still run other recipes."""
    with contextlib.suppress(ModuleNotFoundError):
        torch = importlib.import_module("torch")
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)


class Started(NamedTuple):
    """A child process that has just begun."""

    threads: int
    confinement: Confinement
    requests: BinaryIO
    replies: BinaryIO
    engine: bool
    """Whether it will compute."""


def start(module: str) -> Started:
    """Take the streams and tie this process to its node."""
    parser = argparse.ArgumentParser(prog=module)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--sandbox", default="")
    parser.add_argument("--no-engine", action="store_true")
    stated = parser.parse_args()
    confinement = (
        msgspec.json.decode(stated.sandbox, type=Confinement)
        if stated.sandbox
        else Confinement(scratch=tempfile.gettempdir())
    )
    requests, replies = _claim_streams()
    _end_before_the_node()
    return Started(stated.threads, confinement, requests, replies, not stated.no_engine)


def serve(
    module: str, run: Callable[[BinaryIO, queue.SimpleQueue[bytes]], None], *, engine: bool = True
) -> None:
    """Be a child process: `run` answers on a stream the commands from a queue, while the node
    lives.

    All that it does is done by one confined process. `engine`: whether it will compute.
    """
    started = start(module)

    def work() -> None:
        inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=_receive, args=(started.requests, inbox), daemon=True).start()
        if engine:
            load_engine(started.threads)
        run(started.replies, inbox)

    become(started.confinement, work, (started.requests, started.replies), confined=True)


def send(replies: BinaryIO, message: msgspec.Struct) -> None:
    """Send a complete message to the node."""
    left = memoryview(framed(message))
    while left:
        left = left[replies.write(left) :]


def error_report(error: Exception) -> ErrorReport:
    """A recipe's exception as reported to the node. For an unforeseen one, only its kind: a
    library's message may quote a record, a query or the site's settings."""
    if isinstance(error, DaitnError):
        return ErrorReport.inside(error)
    return ErrorReport.inside(
        WorkFailed(
            f"a recipe failed: {type(error).__name__}",
            fix="see the log of the node that did the work",
        )
    )
