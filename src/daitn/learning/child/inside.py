"""How a child process sets itself up and talks to its node."""

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
    "error_report",
    "send",
    "serve",
]

_OOM_SCORE_ADJ = 500
"""Half of the scale: if memory runs out, Linux kills the worker before the node."""
_MESSAGE_CHARS = 300
"""Most characters of an unforeseen exception's message, which crosses the network."""

_PR_SET_PDEATHSIG = 1


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


def _die_with_the_node() -> None:
    """Have the kernel kill this process when the thread that started it (the node's event loop)
    ends."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE_ADJ))


def _receive(requests: BinaryIO, inbox: queue.SimpleQueue[bytes]) -> None:
    """Queue incoming frames. When the input ends, the node has, and this process exits."""
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
    """Run a child process: `run` replies on the stream to what arrives in the queue.

    `engine`: whether to load PyTorch.
    """
    parser = argparse.ArgumentParser(prog=module)
    parser.add_argument("--threads", type=int, required=True)
    threads: int = parser.parse_args().threads
    requests, replies = _claim_streams()
    _die_with_the_node()
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(requests, inbox), daemon=True).start()
    if engine:
        _load_engine(threads)
    run(replies, inbox)


def send(replies: BinaryIO, message: msgspec.Struct) -> None:
    """Send a message to the node, in full."""
    left = memoryview(framed(message))
    while left:
        left = left[replies.write(left) :]


def error_report(error: Exception, *, silent: bool = False) -> ErrorReport:
    """An exception as the node, and whoever asked it, receives it. The message of an unforeseen one
    is shortened, or left out if `silent`."""
    if isinstance(error, DaitnError):
        return ErrorReport.of(error)
    kind = type(error).__name__
    message = f"a recipe failed: {kind}" if silent else f"{kind}: {error}"[:_MESSAGE_CHARS]
    return ErrorReport.of(WorkFailed(message, fix="see the log of the node that did the work"))
