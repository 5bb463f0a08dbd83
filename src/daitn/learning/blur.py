"""Noise on the weights that a visit leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["blur"]

_BLUR = 0.3
"""Deviation of the noise on each weight, in learning rates. A step of Adam moves a weight by about
one, however small the gradients are."""


@torch.no_grad()
def blur(weights: Sequence[Tensor], learning_rate: float, seed: int) -> None:
    """Add noise to weights, in place.

    It is drawn by `seed`, a secret of the site, and by the weights themselves: no two different
    results have the same noise, of which their difference would be free.
    """
    digest = hashlib.blake2b(str(seed).encode(), digest_size=7)
    for weight in weights:
        digest.update(weight.float().cpu().contiguous().numpy().tobytes())
    generator = torch.Generator().manual_seed(int.from_bytes(digest.digest()))
    for weight in weights:
        noise = torch.randn(weight.shape, generator=generator) * (_BLUR * learning_rate)
        weight.add_(noise.to(weight))
