"""An owner's order: a training intent that its owner signed, which travels with the work for it.

Sites check it without asking anybody, so nobody, the control centre included, can have a model
trained or measured that its owner did not order.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from daitn.objects.intents import TrainingIntent

__all__ = ["Order", "SignedOrder"]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What an owner signs."""

    network: str
    """The network's name."""
    intent: TrainingIntent
    until_s: float
    """No work starts afterwards, in seconds since the epoch."""
    number: Annotated[str, msgspec.Meta(max_length=64)]
    """Random, so that an intent can be ordered twice; the same order handed in again is the same
    job."""


class SignedOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order as it is stored and sent."""

    order: Annotated[bytes, msgspec.Meta(max_length=1 << 20)]
    """The canonical MessagePack of an `Order`, as it was signed."""
    public_key: str
    """The owner's, base64."""
    signature: str
    """Base64."""
