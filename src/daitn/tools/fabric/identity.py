"""Who a process is, and in which network."""

from __future__ import annotations

from dataclasses import dataclass

from daitn.identity.keys import SigningKey
from daitn.identity.orders import OrderBook
from daitn.tools import clock
from daitn.tools.fabric.protocol import Carrier
from daitn.tools.fabric.signed import Members, SignedFabric

__all__ = ["Identity"]


@dataclass(frozen=True)
class Identity:
    """A member's key, and the roster that it believes."""

    key: SigningKey
    network: str
    """The network's name."""
    members: Members
    """The current members, by public key."""

    def signs(self, carrier: Carrier) -> SignedFabric:
        """The fabric on which this member speaks."""
        return SignedFabric(carrier, self.key, self.network, self.members)

    def orders(self) -> OrderBook:
        """Checks owners' orders."""
        return OrderBook(self.network, self.members, clock.wall_s)
