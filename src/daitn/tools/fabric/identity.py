"""A process's identity, and its network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from daitn.identity.keys import SigningKey
from daitn.identity.orders import OrderBook
from daitn.tools import clock
from daitn.tools.fabric.protocol import Carrier
from daitn.tools.fabric.signed import Members, SignedFabric

__all__ = ["Identity"]


@dataclass(frozen=True)
class Identity:
    """A member's key, and its trusted roster."""

    key: SigningKey
    network: str
    """The network's name."""
    members: Members
    """The current members, by public key."""
    epoch: Callable[[], int] | None = None
    """The number of its leadership, if others share the key, see `SignedFabric`."""

    def signs(self, carrier: Carrier) -> SignedFabric:
        """The fabric on which this member speaks."""
        return SignedFabric(carrier, self.key, self.network, self.members, epoch=self.epoch)

    def orders(self) -> OrderBook:
        """Checks owners' orders."""
        return OrderBook(self.network, self.members, clock.wall_s)
