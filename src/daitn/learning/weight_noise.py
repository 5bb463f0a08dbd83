"""Noise on the weights that a visit produces."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["blur", "normal"]

_BLUR = 0.3
"""Deviation of the noise on each weight, in learning rates. A step of Adam moves a weight by about
one, however small the gradients are."""
_ROUNDING = 2.0**-12
"""Likewise, relative to the weight. If a step is about as large as a weight's last bit (2**-24),
rounding drops all but a few steps, so that weights show a single record, and drops narrower noise
as well. Models keep working in 16-bit floats, which are coarser."""
_AT_ONCE = 1 << 20
"""Numbers."""


@torch.no_grad()
def blur(weights: Sequence[Tensor], learning_rate: float, seed: int) -> None:
    """Add noise to weights, in place.

    It is drawn by `seed`, a secret of the site, and by the weights themselves: no two different
    results have the same noise, which would cancel in their difference.
    """
    digest = hashlib.blake2b(str(seed).encode(), digest_size=32)
    for weight in weights:
        digest.update(weight.float().cpu().contiguous().numpy().tobytes())
    for number, weight in enumerate(weights):
        noise = normal(digest.digest() + number.to_bytes(8), weight.numel())
        width = _BLUR * learning_rate + _ROUNDING * weight.float().cpu().abs()
        weight.add_((torch.from_numpy(noise).reshape(weight.shape) * width).to(weight))


def normal(key: bytes, count: int) -> NDArray[np.float32]:
    """Standard normal numbers (Box and Muller 1958), unknown to anybody without the key.

    Weights that learned nothing show their noise. A generator of simulations could be told from
    it: PyTorch's takes 32 bits of its seed, which can be tried. Lengths are of 64 bits: with 32,
    none is beyond 6.8, and what is further out would show a record where its noise is narrow.
    """
    parts = [np.zeros(0, np.float32)]
    for first in range(0, count, _AT_ONCE):
        pairs = -(-min(_AT_ONCE, count - first) // 2)
        drawn = hashlib.shake_256(key + first.to_bytes(8)).digest(12 * pairs)
        lengths = (np.frombuffer(drawn, "<u8", pairs) + 0.5) / 2.0**64
        angles = (np.frombuffer(drawn, "<u4", pairs, 8 * pairs) + 0.5) / 2.0**32
        both = np.sqrt(-2.0 * np.log(lengths)) * np.exp(2j * np.pi * angles)
        parts.append(both.view(np.float64).astype(np.float32))
    return np.concatenate(parts)[:count]
