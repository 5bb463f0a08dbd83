"""Which deployments may answer under which names, according to signatures of owners and control
centres.

Everything is checked when a descriptor arrives, or when time or the roster takes a signature's
force; queries cost nothing. What may not answer is left out of the descriptor, so that it does not
exist for those that route queries.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from daitn.identity.grants import GrantBook
from daitn.objects.access import allows
from daitn.objects.deployments import DeploymentDescriptor, DeploymentState, DeploymentTerms
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.errors import DaitnError, Refused
from daitn.objects.grants import DeploymentGrant, NameGrant, PlaceGrant, Signed, full_name
from daitn.objects.identifiers import Digest, SiteId, checked_name
from daitn.objects.wire import decode
from daitn.tools.throttled import ThrottledLog

__all__ = [
    "EntitledNodes",
    "check_bare_name",
    "check_deployment",
    "check_grant",
    "check_latest",
    "check_place",
]

log = logging.getLogger(__name__)


class _Offer(NamedTuple):
    """One deployment with valid signatures."""

    descriptor: DeploymentDescriptor
    grant: DeploymentGrant | None
    place: PlaceGrant | None
    name: NameGrant | None

    @property
    def title(self) -> str:
        return full_name(self.descriptor.owner, self.descriptor.name)

    @property
    def until_s(self) -> float:
        return min(s.until_s if s else math.inf for s in (self.grant, self.place, self.name))


def check_grant(
    book: GrantBook,
    signed: Signed | None,
    owner: str,
    name: str,
    manifest: Digest | None,
    terms: DeploymentTerms,
) -> DeploymentGrant:
    """The grant of a deployment. Raises `Refused` or `Corrupt` unless its owner signed it, for its
    name, weights and terms."""
    fix = "deploy it with its owner's key: `daitn deploy`"
    if signed is None:
        raise Refused(
            f"{owner} has not signed that it may answer as {name}", field="grant", fix=fix
        )
    grant = book.read(signed, DeploymentGrant)
    if (grant.owner, grant.name, grant.manifest) != (owner, name, manifest):
        what = f"{full_name(grant.owner, grant.name)} with the weights {grant.manifest[:12]}"
        raise Refused(f"its owner signed for {what}", field="grant", fix=fix)
    if grant.terms != terms.digest:
        raise Refused(
            "its owner signed a different recipe, configuration, policy or price",
            field="grant",
            fix=fix,
        )
    return grant


def check_latest(grant: DeploymentGrant, before: Signed | None, *, retired: bool = False) -> None:
    """Raise `Refused` if the grant that a deployment had `before` is later: a deployer cannot bring
    back what its owner replaced. `retired`: nor the same one."""
    if before is None:
        return
    known = decode(before.statement, DeploymentGrant)
    if known.owner != grant.owner:
        return
    if known.issued_at_s > grant.issued_at_s or (
        retired and known.issued_at_s == grant.issued_at_s
    ):
        raise Refused(
            f"{grant.owner} has signed another deployment of "
            f"{full_name(grant.owner, grant.name)} later, or retired this one",
            field="grant",
            fix="deploy it again with its owner's key: `daitn deploy`",
        )


def check_place(
    book: GrantBook, grant: DeploymentGrant, signed: Signed | None, site: str
) -> PlaceGrant | None:
    """The signature that places a deployment at a site; `None` means its owner's. Raises `Refused`
    or `Corrupt` unless its owner names the site, or leaves that to a control centre, which names
    it."""
    title = full_name(grant.owner, grant.name)
    if grant.sites:
        if site not in grant.sites:
            raise Refused(
                f"{grant.owner} has not signed that {title} may answer at {site}", field="grant"
            )
        return None
    if signed is None:
        raise Refused(f"no control centre has placed {title} at {site}", field="place_grant")
    place = book.read(signed, PlaceGrant)
    if (place.owner, place.name, place.manifest, place.site) != (
        grant.owner,
        grant.name,
        grant.manifest,
        site,
    ):
        raise Refused(
            f"a control centre placed {full_name(place.owner, place.name)} with the weights "
            f"{place.manifest[:12]} at {place.site}",
            field="place_grant",
        )
    return place


def check_deployment(
    book: GrantBook, deployment: DeploymentDescriptor, site: str, owner: str, jurisdiction: str
) -> tuple[DeploymentGrant | None, PlaceGrant | None]:
    """What entitles a deployment to answer under its owner's name at a site. `owner` and
    `jurisdiction`: the site's. Raises `Refused`, `Corrupt` or `InvalidInput` if nothing does."""
    checked_name(deployment.name, "name")
    if deployment.grant is None:
        if deployment.owner != owner:
            raise Refused(f"{deployment.owner} has not signed this deployment", field="grant")
        return None, None
    grant = check_grant(
        book,
        deployment.grant,
        deployment.owner,
        deployment.name,
        deployment.manifest,
        deployment.terms,
    )
    if not allows(deployment.policy.release_to, jurisdiction):
        raise Refused(f"it may not be hosted in {jurisdiction}", field="policy.release_to")
    return grant, check_place(book, grant, deployment.place_grant, site)


def check_bare_name(book: GrantBook, deployment: DeploymentDescriptor) -> NameGrant:
    """What entitles a deployment to its bare name. Raises `Refused` or `Corrupt` if nothing
    does."""
    if deployment.name_grant is None:
        raise Refused(f"it was not given the name {deployment.name}", field="name_grant")
    given = book.read(deployment.name_grant, NameGrant)
    if (given.owner, given.name) != (deployment.owner, deployment.name):
        raise Refused(f"the name {given.name} belongs to {given.owner}", field="name_grant")
    return given


class EntitledNodes:
    """The known nodes, each with those of its deployments that may answer.

    - A deployment with a grant answers under its owner's name if the owner signed name, weights and
      terms, and named its facility or left that to a control centre, which placed it there.
    - One without a grant counts as its facility's owner's, and only where that owner has signed
      nothing for the name.
    - Replicas have the same weights: those of the latest grant that is ready anywhere.
    - A bare name means what the roster's first control centre says; if it said two things, the
      first.
    """

    def __init__(self, book: GrantBook) -> None:
        self._book = book
        self._nodes: dict[SiteId, NodeDescriptor] = {}
        self._offers: dict[SiteId, tuple[_Offer, ...]] = {}
        self._sites: dict[str, dict[SiteId, None]] = {}
        """Sites that offer each title and each bare name."""
        self._latest: dict[str, tuple[float, Digest] | None] = {}
        """Issue time and weights of the grant that counts for a title, among current offers."""
        self._holders: dict[str, str] = {}
        """Owners of bare names, among current offers."""
        self._left_out = ThrottledLog(log)
        self._until_s = math.inf
        """When the first signature expires."""

    def described(self, node: NodeDescriptor) -> tuple[NodeDescriptor, ...]:
        """All nodes whose deployments this may have changed, with their current entitlements."""
        site = node.site
        before = {o.title for o in self._offers.get(site, ())}
        names = {o.descriptor.name for o in self._offers.get(site, ())}
        self._take(node)
        offers = self._offers[site]
        touched = [site]
        for key in {o.title for o in offers} | {o.descriptor.name for o in offers} | before | names:
            touched += self._sites.get(key, ())
        return tuple(self._entitled(self._nodes[one]) for one in dict.fromkeys(touched))

    def removed(self, site: SiteId) -> tuple[NodeDescriptor, ...]:
        """A node is no longer a member. Returns like `described`."""
        if site not in self._nodes:
            return ()
        gone = msgspec.structs.replace(self._nodes[site], facility=None)
        others = self.described(gone)[1:]
        del self._nodes[site], self._offers[site]
        return others

    def lapsed(self, now_s: float) -> bool:
        """Whether a signature has expired since the nodes were checked."""
        return now_s >= self._until_s

    def checked_again(self) -> tuple[NodeDescriptor, ...]:
        """All nodes, after a signature expired or the roster changed."""
        self._until_s = math.inf
        for node in tuple(self._nodes.values()):
            self._take(node)
        return tuple(self._entitled(node) for node in self._nodes.values())

    def _take(self, node: NodeDescriptor) -> None:
        site = node.site
        for offer in self._offers.get(site, ()):
            for key in (offer.title, offer.descriptor.name):
                self._sites.get(key, {}).pop(site, None)
                if not self._sites.get(key):
                    self._sites.pop(key, None)
        self._latest.clear()
        self._holders.clear()
        self._nodes[site] = node
        self._offers[site] = offers = tuple(self._valid(node))
        for offer in offers:
            self._until_s = min(self._until_s, offer.until_s)
            for key in (offer.title, offer.descriptor.name):
                self._sites.setdefault(key, {})[site] = None

    def _valid(self, node: NodeDescriptor) -> Iterator[_Offer]:
        for deployment in node.facility.deployments if node.facility else ():
            try:
                yield self._offer(node, deployment)
            except DaitnError as error:
                self._say(node.site, deployment.name, error.problem)

    def _offer(self, node: NodeDescriptor, deployment: DeploymentDescriptor) -> _Offer:
        grant, place = check_deployment(
            self._book, deployment, node.site, node.owner, node.jurisdiction
        )
        name = None
        if deployment.name_grant is not None:
            try:
                name = check_bare_name(self._book, deployment)
            except DaitnError as error:
                self._say(node.site, deployment.name, f"its bare name: {error.problem}")
        return _Offer(deployment, grant, place, name)

    def _entitled(self, node: NodeDescriptor) -> NodeDescriptor:
        if node.facility is None:
            return node
        deployments = []
        for offer in self._offers[node.site]:
            if not self._is_newest(offer):
                continue
            name, owner = offer.descriptor.name, offer.descriptor.owner
            bare = offer.name is not None and self._holder(name) == owner
            kept = offer.descriptor.name_grant if bare else None
            deployments.append(msgspec.structs.replace(offer.descriptor, name_grant=kept))
        facility = msgspec.structs.replace(node.facility, deployments=tuple(deployments))
        return msgspec.structs.replace(node, facility=facility)

    def _is_newest(self, offer: _Offer) -> bool:
        latest = self._latest_of(offer.title)
        if latest is None:
            return True
        if offer.grant is None:
            return False
        issued_at_s, manifest = latest
        return offer.grant.manifest == manifest or offer.grant.issued_at_s > issued_at_s

    def _latest_of(self, title: str) -> tuple[float, Digest] | None:
        if title not in self._latest:
            granted = [
                (o.descriptor.state is DeploymentState.READY, o.grant.issued_at_s, o.grant.manifest)
                for o in self._all(title)
                if o.grant is not None and o.title == title
            ]
            self._latest[title] = max(granted)[1:] if granted else None
        return self._latest[title]

    def _holder(self, name: str) -> str:
        """The owner of a bare name."""
        if name not in self._holders:
            claims = [
                (o.name.issued_at_s, o.name.owner)
                for o in self._all(name)
                if o.name is not None and o.descriptor.name == name
            ]
            self._holders[name] = min(claims)[1]
        return self._holders[name]

    def _all(self, key: str) -> Iterable[_Offer]:
        return (offer for site in self._sites.get(key, ()) for offer in self._offers[site])

    def _say(self, site: SiteId, name: str, why: str) -> None:
        kind = f"{name} at {site} {why}"
        self._left_out.warning(kind, "%s at %s does not answer here: %s", name, site, why)
