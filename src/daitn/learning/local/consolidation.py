"""Online elastic weight consolidation: Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting
in neural networks", arXiv:1612.00796, and Schwarz et al. 2018, "Progress & compress",
arXiv:1805.06370.

A visit pulls weights towards their values on arrival, by how much they mattered at the sites
before: by the diagonal of the Fisher information there, a mean of squared gradients. Adam keeps one
already (Kingma and Ba 2014, arXiv:1412.6980, section 2), of batches. As in the second article, each
visit's has the same mean, and older ones fade. The anchor is what arrives, so that only the
diagonal travels.

A squared gradient is made of records: where a unit is moved by one record alone, those of its
weights are the squares of that record's values. So one number travels for all weights into a unit,
their mean: it tells of no value, and hardly adds to the model's size. It leaves with noise, in
powers of two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from daitn.learning.weight_noise import normal

__all__ = ["importance_after", "units"]

_FADES = 0.9
"""Share of an importance that remains after a further visit: the article's gamma."""
_OCTAVES = 6
"""Minimum and maximum importance, in powers of two of the mean."""
_NOISE = 0.5
"""Deviation of the noise, in powers of two."""


def units(weight: Tensor) -> Tensor:
    """The mean over the weights into each unit: (units, 1, ...) of a (units, ...) tensor."""
    inward = tuple(range(1, weight.dim()))
    return weight.mean(dim=inward, keepdim=True) if inward else weight


@torch.no_grad()
def importance_after(
    before: Sequence[Tensor], squares: Sequence[Tensor], seed: int
) -> list[Tensor]:
    """The importance of each unit's weights after a visit, in float32.

    `before`: as it arrived, empty at first; `squares`: the visit's means of squared gradients, of
    the shapes of the weights; `seed`: the site's secret, by which the noise is drawn.
    """
    energy = [units(square.float()).cpu() for square in squares]
    known = [each.cpu() for each in before] or [torch.zeros_like(each) for each in energy]
    mean = torch.cat([each.flatten() for each in energy]).double().mean().item()
    if not mean > 0.0:
        return [importance * _FADES for importance in known]
    digest = hashlib.blake2b(f"importance {seed}".encode(), digest_size=32)
    for each in energy:
        digest.update(each.contiguous().numpy().tobytes())
    after = []
    for number, (importance, each) in enumerate(zip(known, energy, strict=True)):
        noise = torch.from_numpy(normal(digest.digest() + number.to_bytes(8), each.numel()))
        octave = (each / mean).log2() + _NOISE * noise.reshape(each.shape)
        rounded = octave.round().clamp(-_OCTAVES, _OCTAVES).exp2()
        after.append(importance * _FADES + rounded)
    return after
