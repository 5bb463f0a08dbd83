"""What a merge is believed to leave of what several sites taught one model.

The skills of the merged model are those of the model that the sites got, moved by the mean of what
each site changed, weighted by examples, times the *strength* of the algorithm: 1 for a plain mean
(McMahan et al. 2017, arXiv:1602.05629); more where momentum gathers (Douillard et al. 2023,
arXiv:2311.08105), or where only sites that changed something count for it (Yadav et al. 2023,
arXiv:2306.01708). A mean over sites with different labels thus teaches little of each, and lets
little fade.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from daitn.control.route.value_model import Floats
from daitn.objects.merging import Algorithm

__all__ = ["merged_skills"]

_STRENGTH: Mapping[Algorithm, float] = {Algorithm.DILOCO: 1.5, Algorithm.TIES: 1.5}
"""As `benchmarks.algorithms` measured the ways to the targets: 1.84 times the best with `fedavg`,
1.24 with `diloco`, 1.18 with `ties`."""


def merged_skills(before: Floats, after: Floats, shares: Floats, algorithm: Algorithm) -> Floats:
    """Skills (N, D, L) of a model that K sites got with the skills `before` (N, D, L), left with
    `after` (K, N, D, L), and that counts each of them for its part of `shares` (K,)."""
    weights = shares / shares.sum()
    change = np.tensordot(weights, after - before, axes=1)
    merged: Floats = np.clip(before + _STRENGTH.get(algorithm, 1.0) * change, 0.0, 1.0)
    return merged
