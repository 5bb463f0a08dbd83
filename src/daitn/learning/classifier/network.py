"""The network of a classifier: scaled columns through rectified layers to class scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from daitn.learning.classifier.complaints import some_columns
from daitn.learning.classifier.config import (
    LEAST_DEVIATION,
    MOST_DEVIATIONS,
)
from daitn.learning.classifier.parts import Standard
from daitn.learning.recipe import DataFault, Fault

__all__ = ["class_indices", "forward", "scaled", "trainable"]


def scaled(features: NDArray[np.float32], standard: Standard) -> Tensor:
    """Columns in deviations from their means; missing values count as the mean.

    So does any value of a column that had no values at any site: its mean is unknown.
    """
    deviation = standard.var.sqrt().clamp_min(LEAST_DEVIATION)
    inputs = (torch.from_numpy(features) - standard.mean) / deviation
    inputs[:, standard.count == 0.0] = 0.0
    return inputs.nan_to_num(0.0).clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS)


def forward(inputs: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Class scores (logits)."""
    for weight, bias in layers[:-1]:
        inputs = functional.relu(functional.linear(inputs, weight, bias))
    return functional.linear(inputs, *layers[-1])


def trainable(
    layers: Sequence[tuple[Tensor, Tensor]], device: torch.device
) -> list[tuple[Tensor, Tensor]]:
    """The layers on a device, with gradients."""
    return [
        (weight.to(device).requires_grad_(), bias.to(device).requires_grad_())
        for weight, bias in layers
    ]


def class_indices(labels: Sequence[str], classes: Sequence[str], path: Path) -> Tensor:
    """Each record's class as an index. Raises `DataFault` if a label is not a class."""
    index = {name: number for number, name in enumerate(classes)}
    unknown = sorted(set(labels) - index.keys())
    if unknown:
        raise DataFault(
            Fault.OTHER_LABELS,
            f"{path} has labels that are not classes of the model: {some_columns(unknown)}",
            field="model.config.classes",
            fix="list every class in any site's data",
        )
    return torch.tensor([index[label] for label in labels])
