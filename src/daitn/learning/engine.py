"""The device on which the engine computes, and its precision.

The probe measures the same one that visits, measurements and answers then use. Networks are not
compiled (`torch.compile`): that runs a compiler, and a visit starts no programs.
"""

from __future__ import annotations

import contextlib

import torch

__all__ = ["engine_device", "engine_devices", "is_mixed", "mixed_precision"]


def engine_device() -> torch.device:
    """The first of `engine_devices`, for work on a single device."""
    return engine_devices()[0]


def engine_devices() -> list[torch.device]:
    """The GPUs that PyTorch sees and that CUDA (or ROCm, under the same name) drives, if they are
    of the same kind as the first, which would wait for a slower one; else the CPU, once.

    Apple's Metal is left out: it does not survive the fork by which every visit begins.
    """
    if not torch.cuda.is_available():
        return [torch.device("cpu")]
    kinds = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return [torch.device("cuda", n) for n, kind in enumerate(kinds) if kind == kinds[0]]


def is_mixed(device: torch.device, weights: torch.dtype) -> bool:
    """Whether `mixed_precision` applies: on a GPU, and anywhere to weights in bfloat16.

    Few processors multiply bfloat16 faster than float32.
    """
    return device.type == "cuda" or weights == torch.bfloat16


def mixed_precision(
    device: torch.device, weights: torch.dtype
) -> contextlib.AbstractContextManager[object]:
    """Multiply in bfloat16, regardless of the weights' storage format.

    What training changes stays float32, and so do losses: Micikevicius et al. 2018,
    arXiv:1710.03740. bfloat16 has the range of float32 and needs no scaling of losses.
    """
    if not is_mixed(device, weights):
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
