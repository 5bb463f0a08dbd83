"""Frozen weights in fewer bits than they are stored in.

Four bits with adapters trained on top: QLoRA, Dettmers et al. 2023, arXiv:2305.14314 (NF4, and its
scales quantised again). Eight bits: Dettmers et al. 2022, arXiv:2208.07339. Both with the library
`bitsandbytes`, which a site need not have. What travels are the weights as they are stored.
"""

from __future__ import annotations

import importlib.util
import logging
from typing import TYPE_CHECKING, Literal

from daitn.objects.errors import InvalidInput

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import BitsAndBytesConfig

__all__ = [
    "LIBRARY",
    "Precision",
    "check_library",
    "has_library",
    "held_bytes",
    "keep_gradients",
    "quantisation",
]

LIBRARY = "bitsandbytes"
Precision = Literal["stored", "8bit", "4bit"]

_BYTES = {"8bit": 1.0, "4bit": 0.5 + 1 / 64}
"""Bytes per weight: its bits, and with 4 bits a one-byte scale for each 64."""


def has_library() -> bool:
    """Whether this machine supports quantisation."""
    return importlib.util.find_spec(LIBRARY) is not None


def check_library(field: str) -> None:
    """Raise `InvalidInput` naming `field` unless this machine supports quantisation."""
    if not has_library():
        raise InvalidInput(
            "the package bitsandbytes is not installed here",
            field=field,
            fix="install daitn[quantised] here, or use the weights as they were published",
        )


def held_bytes(parameters: int, quantised: int, number: float, precision: Precision) -> float:
    """Memory in bytes of this many parameters: `quantised` of them in `precision`, the others in
    `number` bytes each."""
    if precision == "stored":
        return number * parameters
    return number * (parameters - quantised) + _BYTES[precision] * quantised


def quantisation(precision: Precision, computed: torch.dtype) -> BitsAndBytesConfig:
    """How transformers should quantise what it reads; products are computed in `computed`.

    Raises `InvalidInput` as `check_library`.
    """
    check_library("model.config.base_precision")
    # It would warn about casting at each product.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_8bit=precision == "8bit",
        load_in_4bit=precision == "4bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=computed,
    )


def keep_gradients(network: nn.Module) -> None:
    """Keep quantised layers in a form that supports gradients: on a CPU, a layer in inference mode
    converts its weights into a faster layout on the first read without a gradient."""
    from bitsandbytes.nn import Linear4bit

    for layer in network.modules():
        if isinstance(layer, Linear4bit):
            layer.training = True
