"""GPUs of this machine, as reported by the system and `nvidia-smi`, since the node imports no
engine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

__all__ = ["free_bytes", "has_gpu"]

_COMMAND = ("nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits")
_WITHIN_S = 20.0
"""The first answer after a start takes seconds, while the driver wakes up."""
_UNIT = 1 << 20


def has_gpu() -> bool:
    """Whether a driver of NVIDIA's or AMD's is loaded."""
    return any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd"))


def free_bytes() -> tuple[int, ...]:
    """The free memory of each NVIDIA GPU that programs here may use.

    It waits for the answer.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None and chosen.strip() in ("", "-1"):
        return ()
    try:
        output = subprocess.run(
            _COMMAND, capture_output=True, text=True, check=True, timeout=_WITHIN_S
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    free = [int(line) * _UNIT for line in output.split() if line.isdecimal()]
    if chosen is None or not all(each.isdecimal() for each in chosen.split(",")):
        return tuple(free)
    return tuple(free[int(each)] for each in chosen.split(",") if int(each) < len(free))
