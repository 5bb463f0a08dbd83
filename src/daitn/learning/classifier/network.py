"""What a classifier computes: scaled columns through rectified layers to class scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from daitn.learning.classifier.parts import Standard
from daitn.objects.errors import InvalidInput

__all__ = ["class_indices", "engine_device", "forward", "scaled"]

_MIN_DEVIATION = 1e-3
"""Of a column that hardly varies: it is not blown up beyond this."""
_MAX_DEVIATIONS = 5.0
"""A value further out than this counts as this far: one outlier does not decide a class."""


def engine_device() -> torch.device:
    """The GPU where PyTorch sees one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def scaled(features: NDArray[np.float32], standard: Standard) -> Tensor:
    """Columns in deviations from their means; a missing value lies on the mean."""
    deviation = standard.var.sqrt().clamp_min(_MIN_DEVIATION)
    inputs = (torch.from_numpy(features) - standard.mean) / deviation
    return inputs.nan_to_num(0.0).clamp(-_MAX_DEVIATIONS, _MAX_DEVIATIONS)


def forward(inputs: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Class scores (logits)."""
    for weight, bias in layers[:-1]:
        inputs = functional.relu(functional.linear(inputs, weight, bias))
    return functional.linear(inputs, *layers[-1])


def class_indices(labels: Sequence[str], classes: Sequence[str], path: Path) -> Tensor:
    """Each record's class as an index. Raises `InvalidInput` naming labels that are no class."""
    index = {name: number for number, name in enumerate(classes)}
    unknown = sorted(set(labels) - set(classes))
    if unknown:
        raise InvalidInput(
            f"{path} has labels that are no class of the model: {', '.join(unknown[:5])}",
            field="model.config.classes",
            fix="list every class that any site's data has",
        )
    return torch.tensor([index[label] for label in labels])
