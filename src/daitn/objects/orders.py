"""An owner's order: a training intent that its owner signed, which travels with the work for it.

Sites check it without asking anybody, so nobody, the control centre included, can have a model
trained or measured that its owner did not order.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from blake3 import blake3

from daitn.objects.identifiers import Digest
from daitn.objects.intents import TrainingIntent
from daitn.objects.moments import Moment

__all__ = [
    "MOST_EXAMPLES",
    "MOST_FRESH",
    "MOST_MEASUREMENTS",
    "MOST_VISITS",
    "Order",
    "OrderUsage",
    "SignedOrder",
    "same_order",
]

MOST_MEASUREMENTS: Final = 4096
"""Of an order at one verifier, unless its owner says otherwise: more than the longest jobs take."""
MOST_VISITS: Final = 256
"""Of an order at one site, and so many merges, unless its owner says otherwise: five times what the
longest simulated jobs make at all sites."""
MOST_EXAMPLES: Final = 100_000_000
"""Of an order without `budget.examples`, unless its owner says otherwise."""
MOST_FRESH: Final = 100
"""Models that one site makes for an order. A job gives up after fewer that come to nothing."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What an owner signs."""

    network: str
    """The network's name."""
    intent: TrainingIntent
    start: Digest | None = None
    """The model from which training starts; none: a fresh one."""
    measurements: Annotated[int, msgspec.Meta(ge=1)] = MOST_MEASUREMENTS
    """The most that one verifier measures for it."""
    visits: Annotated[int, msgspec.Meta(ge=1)] = MOST_VISITS
    """The most that one site makes for it, and that a model has behind it, one after another."""
    examples: Annotated[int, msgspec.Meta(ge=1)] = MOST_EXAMPLES
    """The same of training examples; `budget.examples` where the intent states it."""
    until_s: Moment
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

    @property
    def digest(self) -> Digest:
        """BLAKE3 of the order, which names it: there is one form of it, and one number in it."""
        return Digest(blake3(self.order).hexdigest())


def same_order(one: SignedOrder | None, other: SignedOrder | None) -> bool:
    """Whether two are one order, whoever signed it how often; none is like no other."""
    return one is not None and other is not None and one.order == other.order


class OrderUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What one site has done for an order."""

    order: Digest
    until_s: float
    """Of the order."""
    visits: int = 0
    """Begun."""
    examples: int = 0
    """Of the visits begun."""
    measurements: int = 0
    """Begun."""
    fresh: int = 0
    """Models that it began to make."""
    merges: int = 0
    """Begun."""
