"""How child processes start: forked from a template if the node has one, else from scratch."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from typing import Protocol

from daitn.spawning.streams import Spawner

__all__ = ["ENGINES", "PASSED_ON", "TEMPLATE", "Process", "begin", "environment"]

_log = logging.getLogger(__name__)

TEMPLATE = "DAITN_TEMPLATE"
"""Environment variable of a node: the descriptor of its connection to a template of its workers."""
ENGINES = (
    "torch",
    "torch._dynamo",
    "daitn.learning.worker",
    "daitn.learning.consulting",
    "daitn.learning.answering.worker",
)
"""Imports of such a template, including PyTorch's for the first optimiser. Without PyTorch, there
is no such template."""
PASSED_ON = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "LD_LIBRARY_PATH",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONHASHSEED",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
)
"""Variables passed on from the node's environment: locations of programs and processors. Nothing
else, since the environment may hold secrets, for instance keys of upstream servers."""


class Process(Protocol):
    """The required interface of a process that has begun."""

    @property
    def stdin(self) -> asyncio.StreamWriter | None: ...
    @property
    def stdout(self) -> asyncio.StreamReader | None: ...
    @property
    def stderr(self) -> asyncio.StreamReader | None: ...
    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    async def wait(self) -> int: ...


_TEMPLATE_WITHIN_S = 60.0
"""For its imports, from a cold disk and under load."""
_spawner: Spawner | None = None


async def begin(module: str, arguments: Sequence[str], environment: dict[str, str]) -> Process:
    """Run `python -m <module>` in a separate session, connected by its standard streams."""
    if (spawner := _connected()) is not None:
        try:
            title = " ".join((module, f"(of {os.getpid()})", *arguments))
            async with asyncio.timeout(_TEMPLATE_WITHIN_S):
                return await spawner.spawn(module, arguments, title=title, environment=environment)
        except OSError as error:
            _log.warning("workers start anew from now on: %s", error)
    # -P: files in the working directory are not modules.
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", module, *arguments),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=environment,
        start_new_session=True,
    )


def _connected() -> Spawner | None:
    """The template given to this node, if there is one."""
    global _spawner
    if descriptor := os.environ.pop(TEMPLATE, ""):
        os.set_inheritable(int(descriptor), False)
        _spawner = Spawner(socket.socket(fileno=int(descriptor)))
    return None if _spawner is None or _spawner.lost else _spawner


def environment(threads: int) -> dict[str, str]:
    """Variables of the node's environment for a child, and those that must be set before libraries
    load.

    Fixed thread counts and workspaces make training reproducible. Threads that sleep instead of
    spinning leave the processor to the node and to each other: next to two other busy processes on
    two cores, small networks train 30 times as fast (measured: 60 against 2 Gflop/s). The offline
    switches keep libraries from downloading anything at run time.
    """
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ} | {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "RAYON_NUM_THREADS": str(threads),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }
