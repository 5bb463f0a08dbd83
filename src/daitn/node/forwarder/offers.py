"""A site's offers for AI objects, from its part of the QRRT and from its own data."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from daitn.objects.deployments import ANY_CONTEXT
from daitn.objects.descriptors import NodeDescriptor, Role
from daitn.objects.identifiers import SiteId
from daitn.objects.roster import Member
from daitn.steering.routes.names import domain_of, site_of
from daitn.steering.wire.intent import UNMEASURED, Capability
from daitn.steering.wire.offers import Offer, Update
from daitn.topology.qrrt.snapshot import Deployed, Qrrt

__all__ = ["granted", "home", "learning_offers", "serving_offers"]

_ROLES = {
    Capability.ANSWER: Role.FACILITY,
    Capability.MODEL: Role.FACILITY,
    Capability.DATA: Role.DATA,
    Capability.VERIFY: Role.VERIFIER,
    Capability.HOME: Role.FORWARDER,
}
"""The role required for each kind of offer."""

HALF_EXAMPLES = 1000.0
USUAL_TOKENS = 128
"""Tokens of a typical answer, for times that apply to all answers."""


def home(site: SiteId) -> Offer:
    """The offer by which answers and agents return to this site."""
    return Offer(f"{Capability.HOME}:{site}")


def serving_offers(snapshot: Qrrt, site: SiteId) -> tuple[tuple[str, Offer], ...]:
    """Offers of the deployments at a site, each with the deployment's name.

    A deployment is offered by its name and by every topic on which its accuracy is known.
    """
    return tuple(
        (deployed.name, offer)
        for row, deployed in enumerate(snapshot.rows)
        if deployed.site == site and snapshot.columns.available[row]
        for offer in _offers(snapshot, row, deployed)
    )


def granted(update: Update, member_of: Callable[[SiteId], Member | None]) -> Update:
    """The valid part of an update in a network with a roster, whoever forwards it.

    Of each origin that the roster knows, the offers that its roles, owner and jurisdiction allow.
    `member_of` gives a site's member. A domain's offers are those of several sites, of which the
    border site speaks: it must be known.
    """
    routes = []
    for entry in update.routes:
        member = member_of(SiteId(site_of(entry.origin)))
        if member is None:
            continue
        if entry.offers is not None and domain_of(entry.origin) is None:
            true = tuple(offer for offer in entry.offers if _is_granted(offer, member))
            entry = msgspec.structs.replace(entry, offers=true)
        routes.append(entry)
    return msgspec.structs.replace(update, routes=tuple(routes))


def _is_granted(offer: Offer, member: Member) -> bool:
    capability, _, subject = offer.key.partition(":")
    role = _ROLES.get(capability)
    return (
        role in member.roles
        and (capability != Capability.HOME or subject == member.name)
        and offer.jurisdiction in ("", member.jurisdiction)
        and offer.owner in ("", member.owner)
    )


def learning_offers(node: NodeDescriptor) -> tuple[Offer, ...]:
    """A site's offers for models in training: data and test sets."""
    data = [
        Offer(
            f"{Capability.DATA}:{topic}",
            # More data fits better, with diminishing returns: a thousand examples give one half.
            fit=dataset.samples / (dataset.samples + HALF_EXAMPLES),
            price_usd=dataset.price_usd_per_1k,
            amount=dataset.samples,
            jurisdiction=dataset.jurisdiction,
            owner=node.owner,
        )
        for dataset in node.datasets
        for topic in dataset.topics
    ]
    tests = [
        Offer(
            f"{Capability.VERIFY}:{test.topic}",
            fit=1.0,
            amount=1,
            jurisdiction=node.jurisdiction,
            owner=node.owner,
        )
        for test in (node.verifier.tests if node.verifier else ())
    ]
    return (*data, *tests)


def _offers(snapshot: Qrrt, row: int, deployed: Deployed) -> Iterator[Offer]:
    fits = [
        (topic, float(known.value[row]), int(known.trust[row]) - 1, float(known.at_s[row]))
        for topic, known in snapshot.accuracies.topics.items()
        if known.trust[row] > 0
    ]
    mean = sum(fit for _, fit, _, _ in fits) / len(fits) if fits else 0.0
    trust = min((trust for _, _, trust, _ in fits), default=0)
    for name in deployed.called:
        yield _offer(snapshot, row, deployed, f"{Capability.MODEL}:{name}", mean, trust, 0.0)
    for topic, fit, trusted, at_s in fits:
        key = f"{Capability.ANSWER}:{topic}"
        yield _offer(snapshot, row, deployed, key, fit, trusted, at_s)
    if not fits:
        key = f"{Capability.ANSWER}:{UNMEASURED}"
        yield _offer(snapshot, row, deployed, key, 0.0, 0, 0.0)


def _offer(
    snapshot: Qrrt,
    row: int,
    deployed: Deployed,
    key: str,
    fit: float,
    trust: int,
    at_s: float,
) -> Offer:
    columns, descriptor = snapshot.columns, deployed.descriptor
    serve_s = float(columns.first_token_s[row] + USUAL_TOKENS * columns.per_token_s[row])
    slots = max(1, int(columns.slots[row]))
    ahead = max(0.0, float(columns.in_flight[row]) - slots + 1)
    return Offer(
        key,
        fit=min(1.0, max(0.0, fit)),
        trust=trust,
        serve_s=serve_s,
        wait_s=ahead * serve_s / slots,
        price_usd=descriptor.price_usd_per_1k_out,
        amount=slots,
        jurisdiction=deployed.jurisdiction,
        owner=deployed.provider,
        keeps=deployed.facility.keeps_queries,
        at_s=max(0.0, at_s),
        abilities=(descriptor.mask,),
        context_tokens=descriptor.context_tokens if descriptor.context_tokens < ANY_CONTEXT else 0,
        languages=descriptor.abilities.languages,
    )
