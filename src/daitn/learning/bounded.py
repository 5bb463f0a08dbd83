"""Bounds that prevent a visit from being a single step that carries records away in the weights.

A gradient is a sum over records, and a network can be made so that it can be solved for them: where
a step is linear in it, the weights show it. So a visit is several steps, a gradient has a greatest
norm, and the weights leave with noise (`daitn.learning.weight_noise`). That is not differential
privacy: what a model learned it can remember.
"""

from __future__ import annotations

__all__ = ["LEAST_STEPS", "MOST_BATCH", "MOST_GRADIENT", "batch_of"]

MOST_BATCH = 256
"""Examples per step."""
LEAST_STEPS = 8
"""Minimum steps of a visit."""
MOST_GRADIENT = 1.0
"""Norm to which a gradient is clipped."""


def batch_of(examples: int, batch: int) -> int:
    """The examples of a step of a visit whose configuration says `batch`."""
    return max(1, min(batch, MOST_BATCH, examples // LEAST_STEPS))
