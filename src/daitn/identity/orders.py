"""Signs and checks owners' orders."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from daitn.identity.keys import SigningKey, check_signature
from daitn.objects.errors import Refused
from daitn.objects.intents import TrainingIntent
from daitn.objects.orders import Order, SignedOrder
from daitn.objects.roster import Kind, Member
from daitn.objects.wire import canonical, decode

__all__ = ["OrderBook", "sign_order"]

_DOMAIN = b"daitn order 1\0"
"""A signature of an order is one of nothing else."""
_NUMBER_BYTES = 12


def sign_order(
    intent: TrainingIntent, network: str, until_s: float, key: SigningKey
) -> SignedOrder:
    """Order what an intent asks for, once."""
    number = os.urandom(_NUMBER_BYTES).hex()
    order = Order(network=network, intent=intent, until_s=until_s, number=number)
    text = canonical(order)
    return SignedOrder(order=text, public_key=key.public, signature=key.sign(_DOMAIN + text))


@dataclass(frozen=True)
class OrderBook:
    """Checks orders against one network's roster."""

    network: str
    members: Callable[[], Mapping[str, Member]]
    """The current members, by public key."""
    now_s: Callable[[], float]
    """The time that all machines share."""

    def read(self, signed: SignedOrder | None) -> Order:
        """The order, if it is in force and its intent's owner signed it.

        Raises `Refused` or `Corrupt`.
        """
        if signed is None:
            raise self._refused("nobody ordered it")
        owner = self.members().get(signed.public_key)
        if owner is None or owner.kind is not Kind.OWNER:
            raise self._refused("whoever signed the order is no owner in this network")
        check_signature(signed.public_key, signed.signature, _DOMAIN + signed.order)
        order = decode(signed.order, Order)
        if order.network != self.network:
            raise self._refused("the order is for another network")
        if order.intent.owner != owner.name:
            raise self._refused(f"{owner.name} cannot order for {order.intent.owner}")
        if self.now_s() >= order.until_s:
            raise self._refused("the order has expired")
        return order

    def check(self, signed: SignedOrder | None, intent: TrainingIntent) -> None:
        """Raise `Refused` or `Corrupt` unless the intent's owner ordered just this intent."""
        if self.read(signed).intent != intent:
            raise self._refused("the order is for another intent")

    def _refused(self, why: str) -> Refused:
        return Refused(why, field="order", fix="submit the intent with its owner's key")
