"""Which deployments answer under which names, by what owners and control centres signed.

Everything is checked when a descriptor arrives, or when time or the roster takes a signature's
force; queries cost nothing. What may not answer is left out of the descriptor, so that it does not
exist for whoever routes queries.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from daitn.identity.grants import GrantBook
from daitn.objects.deployments import DeploymentDescriptor, DeploymentState
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.errors import DaitnError, Refused
from daitn.objects.grants import DeploymentGrant, NameGrant, Signed, full_name
from daitn.objects.identifiers import Digest, SiteId, checked_name
from daitn.tools.throttled import ThrottledLog

__all__ = ["EntitledNodes", "check_grant"]

log = logging.getLogger(__name__)


class _Offer(NamedTuple):
    """One deployment whose own signatures are in force."""

    descriptor: DeploymentDescriptor
    grant: DeploymentGrant | None
    name: NameGrant | None

    @property
    def title(self) -> str:
        return full_name(self.descriptor.owner, self.descriptor.name)

    @property
    def until_s(self) -> float:
        return min(s.until_s if s else math.inf for s in (self.grant, self.name))


def check_grant(
    book: GrantBook, signed: Signed | None, owner: str, name: str, manifest: Digest | None
) -> DeploymentGrant:
    """The grant of a deployment. Raises `Refused` or `Corrupt` unless its owner signed it, for its
    name and weights."""
    fix = "deploy it with its owner's key: `daitn deploy`"
    if signed is None:
        raise Refused(f"{owner} did not sign that it may answer as {name}", field="grant", fix=fix)
    grant = book.read(signed, DeploymentGrant)
    if (grant.owner, grant.name, grant.manifest) != (owner, name, manifest):
        what = f"{full_name(grant.owner, grant.name)} with the weights {grant.manifest[:12]}"
        raise Refused(f"what its owner signed is {what}", field="grant", fix=fix)
    return grant


class EntitledNodes:
    """The nodes that are known, each with those of its deployments that may answer.

    - A deployment with a grant answers under its owner's name if the owner signed name and weights.
    - One without a grant counts as its facility's owner's, and only where that owner has signed
      nothing for the name.
    - Replicas have the same weights: those of the latest grant that is ready anywhere.
    - A bare name means what a control centre says; where two differ, who got it first.
    """

    def __init__(self, book: GrantBook) -> None:
        self._book = book
        self._nodes: dict[SiteId, NodeDescriptor] = {}
        self._offers: dict[SiteId, tuple[_Offer, ...]] = {}
        self._sites: dict[str, dict[SiteId, None]] = {}
        """Where each title and each bare name is offered."""
        self._latest: dict[str, tuple[float, Digest] | None] = {}
        """When the grant that counts for a title was issued, and its weights; of the offers now."""
        self._holders: dict[str, str] = {}
        """The owners whom bare names mean; of the offers now."""
        self._said: set[tuple[SiteId, str, str]] = set()
        """What was logged of current nodes."""
        self._lapsed = ThrottledLog(log)
        self._until_s = math.inf
        """When the first signature ends."""

    def described(self, node: NodeDescriptor) -> tuple[NodeDescriptor, ...]:
        """All nodes whose deployments may have changed by this, as they are entitled now."""
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
        """A node is no member any more. Returns as `described` does."""
        if site not in self._nodes:
            return ()
        gone = msgspec.structs.replace(self._nodes[site], facility=None)
        others = self.described(gone)[1:]
        del self._nodes[site], self._offers[site]
        return others

    def lapsed(self, now_s: float) -> bool:
        """Whether a signature has ended since the nodes were checked."""
        return now_s >= self._until_s

    def checked_again(self) -> tuple[NodeDescriptor, ...]:
        """All nodes, after a signature ended or the roster changed."""
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
        self._said = {said for said in self._said if said[0] != node.site}
        for deployment in node.facility.deployments if node.facility else ():
            try:
                yield self._offer(node, deployment)
            except DaitnError as error:
                self._say(node.site, deployment.name, error.problem)

    def _offer(self, node: NodeDescriptor, deployment: DeploymentDescriptor) -> _Offer:
        checked_name(deployment.name, "name")
        grant = None
        if deployment.grant is not None:
            grant = check_grant(
                self._book,
                deployment.grant,
                deployment.owner,
                deployment.name,
                deployment.manifest,
            )
        elif deployment.owner != node.owner:
            raise Refused(f"{deployment.owner} did not sign it", field="grant")
        name = None
        if deployment.name_grant is not None:
            try:
                name = self._book.read(deployment.name_grant, NameGrant)
            except DaitnError as error:
                self._say(node.site, deployment.name, f"its bare name: {error.problem}")
            if name and (name.owner, name.name) != (deployment.owner, deployment.name):
                name = None
        return _Offer(deployment, grant, name)

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
        """The owner whom a bare name means."""
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
        if (site, name, why) not in self._said:
            self._said.add((site, name, why))
            self._lapsed.warning(
                f"{name} at {site} {why}", "%s at %s does not answer here: %s", name, site, why
            )
