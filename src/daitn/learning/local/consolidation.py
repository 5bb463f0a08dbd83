"""Online elastic weight consolidation: Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting
in neural networks", arXiv:1612.00796, and Schwarz et al. 2018, "Progress & compress",
arXiv:1805.06370.

A visit pulls each weight towards its value on arrival, by how much it mattered at the sites before:
by the diagonal of the Fisher information there, a mean of squared gradients. Adam keeps one already
(Kingma and Ba 2014, arXiv:1412.6980, section 2), of batches. As in the second article, each visit's
has the same mean, and older ones fade. The anchor is what arrives, so that only the diagonal
travels.

A squared gradient is made of records. It leaves with noise, in powers of two of its mean, and none
is told apart from its neighbours by less than a factor of two: far coarser than the weights beside
it, which moved where it is not zero.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from daitn.learning.blur import normal

__all__ = ["importance_after"]

_FADES = 0.9
"""Share of an importance that a further visit leaves: the article's gamma."""
_OCTAVES = 6
"""Least and greatest importance, in powers of two of the mean."""
_NOISE = 0.5
"""Deviation of the noise, in powers of two."""


@torch.no_grad()
def importance_after(
    before: Sequence[Tensor], squares: Sequence[Tensor], seed: int
) -> list[Tensor]:
    """The importance of each weight after a visit, in float32.

    `before`: as it arrived, zeros at first; `squares`: the visit's means of squared gradients;
    `seed`: the site's secret, by which the noise is drawn.
    """
    mean = torch.cat([square.flatten() for square in squares]).double().mean().item()
    if not mean > 0.0:
        return [importance * _FADES for importance in before]
    digest = hashlib.blake2b(f"importance {seed}".encode(), digest_size=32)
    for square in squares:
        digest.update(square.float().cpu().contiguous().numpy().tobytes())
    after = []
    for number, (importance, square) in enumerate(zip(before, squares, strict=True)):
        noise = torch.from_numpy(normal(digest.digest() + number.to_bytes(8), square.numel()))
        octave = (square.float().cpu() / mean).log2() + _NOISE * noise.reshape(square.shape)
        told = octave.round().clamp(-_OCTAVES, _OCTAVES).exp2()
        after.append(importance * _FADES + told.to(importance))
    return after
