"""Signs and checks owners' orders."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from daitn.identity.keys import SigningKey, check_signature
from daitn.identity.signing import check_descent
from daitn.objects.descriptors import Role
from daitn.objects.errors import Corrupt, Refused
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.intents import TrainingIntent
from daitn.objects.messages import Work
from daitn.objects.models import ModelRef
from daitn.objects.orders import (
    MOST_MEASUREMENTS,
    MOST_VISITS,
    Order,
    SignedOrder,
    allowed_examples,
)
from daitn.objects.roster import Kind, Member
from daitn.objects.unknown_fields import reads
from daitn.objects.wire import canonical, decode

__all__ = ["OrderBook", "sign_order"]

_DOMAIN = b"daitn order 1\0"
"""Domain separation of these signatures."""
_NUMBER_BYTES = 12
_TRIES = 3
"""How often a visit of a fixed route may begin: sites and links fail."""


def sign_order(
    intent: TrainingIntent,
    network: str,
    until_s: float,
    key: SigningKey,
    *,
    start: Digest | None = None,
    measurements: int = MOST_MEASUREMENTS,
    visits: int = MOST_VISITS,
) -> SignedOrder:
    """Order an intent's work, once; see `Order`."""
    number = os.urandom(_NUMBER_BYTES).hex()
    order = Order(
        network=network,
        intent=intent,
        start=start,
        measurements=measurements,
        visits=max(visits, _TRIES * len(intent.route)),
        examples=allowed_examples(intent),
        until_s=until_s,
        number=number,
    )
    text = canonical(decode(canonical(order), Order))  # As receivers will write it.
    return SignedOrder(order=text, public_key=key.public, signature=key.sign(_DOMAIN + text))


@dataclass(frozen=True)
class OrderBook:
    """Checks orders against one network's roster."""

    network: str
    members: Callable[[], Mapping[str, Member]]
    """The current members, by public key."""
    now_s: Callable[[], float]
    """The time shared by all machines."""

    def read(self, signed: SignedOrder | None, *, ended: bool = False) -> Order:
        """The order, if it is valid and its intent's owner signed it. `ended`: it may have expired.

        Raises `Refused` or `Corrupt`.
        """
        if signed is None:
            raise self._refused("nobody ordered it")
        owner = self.members().get(signed.public_key)
        if owner is None or owner.kind is not Kind.OWNER:
            raise self._refused("the signer of the order is not an owner in this network")
        check_signature(signed.public_key, signed.signature, _DOMAIN + signed.order)
        order = decode(signed.order, Order)
        if not reads(signed.order, order, later=False):  # What it forbids may be unknown here.
            raise Corrupt("the order is not in canonical form", field="order", fix="sign it again")
        if order.network != self.network:
            raise self._refused("the order is for another network")
        if order.intent.owner != owner.name:
            raise self._refused(f"{owner.name} cannot order for {order.intent.owner}")
        if not ended and self.now_s() >= order.until_s:
            raise self._refused("the order has expired")
        return order

    def check(
        self, signed: SignedOrder | None, intent: TrainingIntent, start: ModelRef | None
    ) -> None:
        """Raise `Refused` or `Corrupt` unless the intent's owner ordered exactly this intent, from
        exactly this model."""
        order = self.read(signed)
        if order.intent != intent:
            raise self._refused("the order is for another intent")
        if order.start != (start.manifest if start else None):
            raise self._refused("the order is for another start model")

    def read_work(self, work: Work) -> Order:
        """The order of a piece of work whose models descend from it, or are its start model.

        Sites of the network signed every step on the way. Raises `Refused` or `Corrupt`.
        """
        order = self.read(work.order)
        assert work.order is not None
        made = check_descent(
            work.lineage, order.start, work.job, work.order.digest, self.sites(Role.DATA)
        )
        models = [model.manifest for model in work.models]
        if not {order.start, *made} >= set(models) or (not models and (made or order.start)):
            raise self._refused("the model does not descend from this order")
        return order

    def sites(self, role: Role | None = None) -> dict[SiteId, str]:
        """The public keys of the network's sites, or of those with a role."""
        return {
            SiteId(member.name): member.public_key
            for member in self.members().values()
            if member.kind is Kind.SITE and (role is None or role in member.roles)
        }

    def _refused(self, why: str) -> Refused:
        return Refused(why, field="order", fix="submit the intent with its owner's key")
