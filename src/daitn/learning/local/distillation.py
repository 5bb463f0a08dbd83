"""Learning without forgetting: Li and Hoiem 2016, arXiv:1606.09282, with the loss of Hinton et al.
2015, "Distilling the knowledge in a neural network", arXiv:1503.02531.

The model that arrived is the teacher: what it says about the site's own records is taught with
their labels. Nothing travels but the model.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

__all__ = ["TEMPERATURE", "distilled"]

TEMPERATURE = 2.0
"""As in the first article: it gives weight to the teacher's less likely choices."""


def distilled(scores: Tensor, taught: Tensor) -> Tensor:
    """The loss of each record, (N,), of its (N, choices) scores (logits) by the teacher's."""
    hot = functional.log_softmax(scores / TEMPERATURE, dim=1)
    wanted = functional.log_softmax(taught / TEMPERATURE, dim=1)
    apart = functional.kl_div(hot, wanted, reduction="none", log_target=True)
    return TEMPERATURE**2 * apart.sum(dim=1)
