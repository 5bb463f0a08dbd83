"""The processes in which a node of a network has its work done."""

import contextlib

import psutil

__all__ = ["workers_of"]


def workers_of(node: int, module: str) -> list[psutil.Process]:
    """Those that run a module of `daitn.learning` for the node with this process id, oldest first:
    lists of processes say for whom."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if " ".join(process.cmdline()).startswith(f"daitn.learning.{module} (of {node})"):
                found.append(process)
    return sorted(found, key=lambda process: (process.create_time(), process.pid))
