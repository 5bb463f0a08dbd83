"""An owner's order: a training intent signed by its owner, which travels with the work for it.

Sites check it without asking anybody, so nobody, the control centre included, can have a model
trained or measured that its owner did not order.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from daitn.objects.digests import digest_of
from daitn.objects.identifiers import Digest
from daitn.objects.intents import TrainingIntent
from daitn.objects.moments import DAY_S, Moment

__all__ = [
    "MOST_EXAMPLES",
    "MOST_FRESH",
    "MOST_MEASUREMENTS",
    "MOST_VISITS",
    "Order",
    "OrderUsage",
    "SignedOrder",
    "allowed_examples",
    "order_until_s",
]

MOST_MEASUREMENTS: Final = 4096
"""Measurements of an order at one verifier, unless its owner says otherwise: more than the longest
jobs take."""
MOST_VISITS: Final = 256
"""Visits of an order at one site, and as many merges, unless its owner says otherwise: five times
what the longest simulated jobs make at all sites."""
MOST_EXAMPLES: Final = 100_000_000
"""Examples of an order without `budget.examples`, unless its owner says otherwise."""
MOST_FRESH: Final = 100
"""Fresh models that one site makes under an order. A job gives up after fewer failures."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What an owner signs."""

    network: str
    """The network's name."""
    intent: TrainingIntent
    start: Digest | None = None
    """The model from which training starts; absent means a fresh one."""
    measurements: Annotated[int, msgspec.Meta(ge=1)] = MOST_MEASUREMENTS
    """Maximum number of measurements by one verifier under it."""
    visits: Annotated[int, msgspec.Meta(ge=1)] = MOST_VISITS
    """Maximum number of visits at one site under it, and of consecutive visits behind a model."""
    examples: Annotated[int, msgspec.Meta(ge=1)] = MOST_EXAMPLES
    """Likewise of training examples; `budget.examples` if the intent states it."""
    until_s: Moment
    """No work starts afterwards, in seconds since the epoch."""
    number: Annotated[str, msgspec.Meta(max_length=64)]
    """Random, so that an intent can be ordered twice; submitting the same order again is the same
    job."""


def allowed_examples(intent: TrainingIntent) -> int:
    """The training examples that an order of the intent allows: no site trains on more for it."""
    return intent.budget.examples or MOST_EXAMPLES


class SignedOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order as stored and sent."""

    order: Annotated[bytes, msgspec.Meta(max_length=1 << 20)]
    """The signed canonical MessagePack of an `Order`."""
    public_key: str
    """The owner's, base64."""
    signature: str
    """Base64."""

    @property
    def digest(self) -> Digest:
        """BLAKE3 of the order, which identifies it: it has only one form, and contains a random
        number."""
        return digest_of(self.order)


class OrderUsage(msgspec.Struct, frozen=True, kw_only=True):
    """The work of one site under an order."""

    order: Digest
    until_s: float
    """When the order expires."""
    visits: int = 0
    """Visits begun."""
    examples: int = 0
    """Examples of the visits begun."""
    measurements: int = 0
    """Measurements begun."""
    fresh: int = 0
    """Fresh models begun."""
    merges: int = 0
    """Merges begun."""


def order_until_s(intent: TrainingIntent, now_s: float) -> float:
    """When an order that is signed now expires: 30 days after the intent's own duration, since jobs
    wait for absent sites."""
    return now_s + (intent.budget.duration_s or 0.0) + 30 * DAY_S
