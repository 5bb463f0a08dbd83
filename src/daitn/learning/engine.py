"""Which processor the engine computes on, and in which precision.

The probe measures the same one that visits, measurements and answers then use.
"""

from __future__ import annotations

import contextlib

import torch

__all__ = ["engine_device", "mixed_precision"]


def engine_device() -> torch.device:
    """The GPU if PyTorch sees one that CUDA (or ROCm, by the same name) drives, else the CPU.

    Apple's Metal is left out: it does not survive the fork by which every visit begins.
    """
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def mixed_precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Multiply in bfloat16 on a GPU, whatever the weights are stored in.

    What training changes stays float32, and so do losses: Micikevicius et al. 2018,
    arXiv:1710.03740. bfloat16 has the range of float32 and needs no scaling of losses. Processors
    compute in the numbers of the weights: few of them multiply bfloat16 faster.
    """
    if device.type != "cuda":
        return contextlib.nullcontext()
    return torch.autocast("cuda", dtype=torch.bfloat16)
