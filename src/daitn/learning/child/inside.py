"""What every child process does first, and how it talks to its node."""

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
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from daitn.learning.child.frames import HEADER, framed
from daitn.objects.errors import DaitnError, ErrorReport, WorkFailed

__all__ = [
    "reported",
    "send",
    "serve",
]

_OOM_SCORE_ADJ = 500
"""Half of the scale: where memory runs out, Linux ends the worker before the node."""
_MESSAGE_CHARS = 300
"""Of an unforeseen exception's message, which crosses the network."""

_PR_SET_PDEATHSIG = 1


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


def serve(
    module: str, run: Callable[[BinaryIO, queue.SimpleQueue[bytes]], None], *, engine: bool = True
) -> None:
    """Be a child process: `run` answers on a stream what comes in a queue, while the node lives.

    `engine`: whether it will compute.
    """
    parser = argparse.ArgumentParser(prog=module)
    parser.add_argument("--threads", type=int, required=True)
    threads: int = parser.parse_args().threads
    requests, replies = _claim_streams()
    _end_before_the_node()
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(requests, inbox), daemon=True).start()
    if engine:
        _load_engine(threads)
    run(replies, inbox)


def send(replies: BinaryIO, message: msgspec.Struct) -> None:
    """Hand a message to the node, whole."""
    left = memoryview(framed(message))
    while left:
        left = left[replies.write(left) :]


def reported(error: Exception, *, silent: bool = False) -> ErrorReport:
    """A recipe's exception as the node hears of it, and whoever asked the node; an unforeseen one
    is cut short. `silent`: its words stay here."""
    if isinstance(error, DaitnError):
        return ErrorReport.of(error)
    kind = type(error).__name__
    message = f"a recipe failed: {kind}" if silent else f"{kind}: {error}"[:_MESSAGE_CHARS]
    return ErrorReport.of(
        WorkFailed(message, fix="the log of the node that did the work says where")
    )
