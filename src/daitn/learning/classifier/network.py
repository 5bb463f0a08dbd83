"""What a classifier computes: scaled columns through rectified layers to class scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from daitn.learning.classifier.complaints import some
from daitn.learning.classifier.config import ClassifierConfig
from daitn.learning.classifier.layout import LABEL
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
    """Columns in deviations from their means; a missing value lies on the mean.

    So does any value of a column that no site had any values of: nothing was learned of it, and
    no mean is known.
    """
    deviation = standard.var.sqrt().clamp_min(_MIN_DEVIATION)
    inputs = (torch.from_numpy(features) - standard.mean) / deviation
    inputs[:, standard.count == 0.0] = 0.0
    return inputs.nan_to_num(0.0).clamp(-_MAX_DEVIATIONS, _MAX_DEVIATIONS)


def forward(inputs: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Class scores (logits)."""
    for weight, bias in layers[:-1]:
        inputs = functional.relu(functional.linear(inputs, weight, bias))
    return functional.linear(inputs, *layers[-1])


def class_indices(labels: Sequence[str], config: ClassifierConfig, path: Path) -> Tensor:
    """Each record's class as an index. Raises `InvalidInput` where a label is no class.

    It names only labels that are published: a model may call any column its label.
    """
    index = {name: number for number, name in enumerate(config.classes)}
    unknown = sorted(set(labels) - index.keys())
    if unknown:
        told = some(unknown) if config.label == LABEL else f"{len(unknown)} of them"
        raise InvalidInput(
            f"{path} has labels that are no class of the model: {told}",
            field="model.config.classes",
            fix="list every class that any site's data has",
        )
    return torch.tensor([index[label] for label in labels])
