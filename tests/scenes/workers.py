"""Processes that a test looks for by what they run; others come and go while it looks."""

import contextlib
from collections.abc import Iterable

import psutil

__all__ = ["children_of", "has_ended", "workers_of"]


def _with_commands(
    processes: Iterable[psutil.Process],
) -> list[tuple[psutil.Process, list[str]]]:
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # It ended since it was listed.
            found.append((process, process.cmdline()))
    return found


def children_of(
    node: int | None = None, recursive: bool = False
) -> list[tuple[psutil.Process, list[str]]]:
    """The children that a process has (None: this one), each with its command line."""
    return _with_commands(psutil.Process(node).children(recursive))


def workers_of(node: int, module: str, without: str | None = None) -> list[psutil.Process]:
    """Those that run a module of `daitn.learning` for the node with this process id, oldest first:
    lists of processes say for whom. Those started with the argument `without` are left out."""
    start = f"daitn.learning.{module} (of {node})"
    found = [
        process
        for process, command in _with_commands(psutil.process_iter())
        if " ".join(command).startswith(start) and without not in " ".join(command).split()
    ]
    return sorted(found, key=lambda process: (process.create_time(), process.pid))


def has_ended(process: int) -> bool:
    """Whether the process is gone; one that nobody has reaped yet has ended too."""
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
