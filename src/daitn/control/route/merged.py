"""The value model of a merge: how much remains of what several sites taught.

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

from daitn.objects.merging import Algorithm
from daitn.topology.arrays import Floats

__all__ = ["merged_skills"]

_STRENGTH: Mapping[Algorithm, float] = {Algorithm.DILOCO: 1.5, Algorithm.TIES: 1.5}
"""As measured by `benchmarks.algorithms` on the way to the targets: 1.84 times the best with
`fedavg`, 1.24 with `diloco`, 1.18 with `ties`."""


def merged_skills(before: Floats, after: Floats, shares: Floats, algorithm: Algorithm) -> Floats:
    """Skills of a merge of K models, which had the skills `before`, of any shape, and now have
    `after` (K, ...), weighted by `shares` (K,)."""
    weights = shares / shares.sum()
    change = np.tensordot(weights, after - before, axes=1)
    merged: Floats = np.clip(before + _STRENGTH.get(algorithm, 1.0) * change, 0.0, 1.0)
    return merged
