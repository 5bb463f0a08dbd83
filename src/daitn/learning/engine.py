"""Which processor the engine computes on, and in which precision.

The probe measures the same one that visits, measurements and answers then use.
"""

from __future__ import annotations

import contextlib

import torch

__all__ = ["engine_device", "is_mixed", "mixed_precision"]


def engine_device() -> torch.device:
    """The GPU if PyTorch sees one that CUDA (or ROCm, by the same name) drives, else the CPU.

    Apple's Metal is left out: it does not survive the fork by which every visit begins.
    """
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def is_mixed(device: torch.device, weights: torch.dtype) -> bool:
    """Whether `mixed_precision` applies: on a GPU, and anywhere to weights in bfloat16.

    Few processors multiply bfloat16 faster than float32.
    """
    return device.type == "cuda" or weights == torch.bfloat16


def mixed_precision(
    device: torch.device, weights: torch.dtype
) -> contextlib.AbstractContextManager[object]:
    """Multiply in bfloat16, whatever the weights are stored in.

    What training changes stays float32, and so do losses: Micikevicius et al. 2018,
    arXiv:1710.03740. bfloat16 has the range of float32 and needs no scaling of losses.
    """
    if not is_mixed(device, weights):
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
