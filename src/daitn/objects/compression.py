"""The form in which updates travel to the aggregator."""

from __future__ import annotations

import enum

__all__ = ["UPDATE", "Compression"]

UPDATE = ".update.safetensors"
"""Suffix of the names of parts that hold an update."""


class Compression(enum.StrEnum):
    """Compression of the update from a visit of a round."""

    AUTO = "auto"
    """The network chooses: `int8` if the transfer to the aggregator takes much of the round's time,
    else `none`."""
    NONE = "none"
    """The whole model, uncompressed."""
    BF16 = "bf16"
    """The difference from the round's initial model, in 16 bits."""
    INT8 = "int8"
    """The same in 8 bits, with a scale for each tensor."""
    TOPK = "topk"
    """The largest sixteenth of the difference."""
