"""The draws of DP-SGD (Abadi et al. 2016, arXiv:1607.00133): records, and noise.

They are of a cryptographic stream, by a secret of the site and the step's number: nobody else can
draw them again, and a visit that goes on from a savepoint draws as before. Of the libraries that do
the same, Opacus brings its own data loader and optimiser, whose draws follow from PyTorch's
generator, and hooks that do not know the layers of the models that we adapt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from daitn.learning.recipe import DpSgd
from daitn.learning.weight_noise import normal

__all__ = ["StepsDone", "clip_factors", "drawn", "noisy_mean", "shares"]

_RANGE = 2.0**32


class StepsDone(msgspec.Struct, frozen=True, kw_only=True):
    """Progress of a visit at a savepoint."""

    steps: int


def drawn(terms: DpSgd, step: int, records: int) -> NDArray[np.int64]:
    """The records of a step: each with the probability `rate`, independently of the others (Poisson
    sampling), as the accountant assumes."""
    return np.flatnonzero(shares(terms, "records", step, records) < terms.rate)


def shares(terms: DpSgd, purpose: str, step: int, count: int) -> NDArray[np.float64]:
    """Numbers that are uniform in [0, 1)."""
    bits = hashlib.shake_256(_key(terms, purpose, step)).digest(4 * count)
    return np.frombuffer(bits, "<u4") / _RANGE


def clip_factors(norms: Tensor, clip: float) -> Tensor:
    """Factors for gradients with these norms, so that none is longer than `clip`: 0 if a norm is
    not a number."""
    return torch.where(norms.isfinite(), clip / norms.clamp_min(clip), 0.0)


def noisy_mean(sums: Sequence[Tensor], terms: DpSgd, step: int) -> list[Tensor]:
    """The noisy mean, which may be revealed, of the sums of a step's clipped gradients."""
    key, deviation = _key(terms, "noise", step), terms.noise * terms.clip
    noisy = []
    for number, summed in enumerate(sums):
        noise = torch.from_numpy(normal(key + number.to_bytes(8), summed.numel()))
        noise = noise.reshape(summed.shape).to(summed)
        noisy.append((summed + deviation * noise) / terms.lot)
    return noisy


def _key(terms: DpSgd, purpose: str, step: int) -> bytes:
    of_step = f"{purpose} of step {step}".encode()
    return hashlib.blake2b(of_step, key=hashlib.blake2b(terms.secret).digest()).digest()
