"""The draws of DP-SGD (Abadi et al. 2016, arXiv:1607.00133): which records, and the noise.

They are of a cryptographic stream, by a secret of the site and the step's number: nobody else can
draw them again, and a visit that goes on from a savepoint draws as before. Of the libraries that do
the same, Opacus brings its own data loader and optimiser, whose draws follow from PyTorch's
generator, and hooks that do not know the layers of the models that we adapt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from daitn.learning.blur import normal
from daitn.learning.recipe import DpSgd

__all__ = ["clip_factors", "drawn", "noisy_mean", "shares"]

_RANGE = 2.0**32


def drawn(terms: DpSgd, step: int, records: int) -> NDArray[np.int64]:
    """The records of a step: each with the probability `rate`, whatever others are drawn (Poisson
    sampling), as the accountant assumes."""
    return np.flatnonzero(shares(terms, "records", step, records) < terms.rate)


def shares(terms: DpSgd, purpose: str, step: int, count: int) -> NDArray[np.float64]:
    """Numbers that are uniform in [0, 1)."""
    bits = hashlib.shake_256(_key(terms, purpose, step)).digest(4 * count)
    return np.frombuffer(bits, "<u4") / _RANGE


def clip_factors(norms: Tensor, clip: float) -> Tensor:
    """By what to multiply gradients with these norms, so that none is longer than `clip`: by
    nothing where it is not a number."""
    return torch.where(norms.isfinite(), clip / norms.clamp_min(clip), 0.0)


def noisy_mean(sums: Sequence[Tensor], terms: DpSgd, step: int) -> list[Tensor]:
    """Of the sums of a step's clipped gradients, the mean that may be told."""
    key, deviation = _key(terms, "noise", step), terms.noise * terms.clip
    told = []
    for number, summed in enumerate(sums):
        noise = torch.from_numpy(normal(key + number.to_bytes(8), summed.numel()))
        noise = noise.reshape(summed.shape).to(summed)
        told.append((summed + deviation * noise) / terms.lot)
    return told


def _key(terms: DpSgd, purpose: str, step: int) -> bytes:
    of_step = f"{purpose} of step {step}".encode()
    return hashlib.blake2b(of_step, key=hashlib.blake2b(terms.secret).digest()).digest()
