"""In which form what a site trained travels to the site that merges it."""

from __future__ import annotations

import enum

__all__ = ["UPDATE", "Compression"]

UPDATE = ".update.safetensors"
"""How the names of parts end that hold an update."""


class Compression(enum.StrEnum):
    """Of the update that a visit of a round made."""

    AUTO = "auto"
    """The network chooses: `int8` where the way to the site that merges takes much of the round's
    time, else `none`."""
    NONE = "none"
    """The whole model, as it is."""
    BF16 = "bf16"
    """The difference from the model that the round began with, in 16 bits."""
    INT8 = "int8"
    """The same in 8 bits, with a scale for each tensor."""
    TOPK = "topk"
    """The largest sixteenth of the difference."""
