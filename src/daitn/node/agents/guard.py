"""Who may send a travelling model, and what it must prove."""

from __future__ import annotations

from dataclasses import dataclass

from daitn.identity.keys import SigningKey
from daitn.identity.orders import OrderBook
from daitn.identity.signing import check_model
from daitn.identity.statements import sign_statement
from daitn.node.agents.itinerary import Itinerary
from daitn.node.forwarder.protection import check_packet, sign_packet
from daitn.objects.agents import Agent
from daitn.objects.descriptors import Role
from daitn.objects.errors import Corrupt, Refused
from daitn.objects.identifiers import SiteId
from daitn.objects.jobs import Planned, VerifiersChosen
from daitn.objects.lineage import Entry, Lineage, Verification, ancestry
from daitn.objects.roster import Kind
from daitn.steering.wire.packet import Packet

__all__ = ["AgentGuard"]


@dataclass(frozen=True)
class AgentGuard:
    """Signs one site's messages about travelling models, and checks those that arrive."""

    orders: OrderBook
    key: SigningKey

    def sign(self, packet: Packet) -> Packet:
        """The packet, signed by this site."""
        return sign_packet(packet, self.key)

    def stated(self, entry: Entry) -> bytes:
        """An entry of this site, signed for outsiders."""
        return sign_statement(entry, self.orders.network, self.key)

    def check_sender(self, packet: Packet, agent: Agent, site: SiteId | None = None) -> None:
        """Raise `Refused` or `Corrupt` unless the site that signed the packet has the agent.

        That is the site that its facts name last, or its home; and it is `site`, if given.
        """
        signer = self.signer(packet)
        if signer not in (_last_holder(agent), agent.home) or site not in (None, signer):
            raise Refused(f"{signer} does not have {agent.job}", field="site")

    def signer(self, packet: Packet) -> SiteId:
        """The site that signed a packet. Raises `Refused` or `Corrupt`."""
        member = self.orders.members().get(check_packet(packet))
        if member is None or member.kind is not Kind.SITE:
            raise Refused("the packet's signer is not a site of this network", field="seal")
        return SiteId(member.name)

    def check_order(self, itinerary: Itinerary) -> None:
        """Raise `Refused` or `Corrupt` unless an agent's owner ordered its job, at its home."""
        job, home = itinerary.job, itinerary.agent.home
        self.orders.check(job.order, job.intent, job.start)
        own, number = f"{job.intent.name}-{home}-", job.id.rpartition("-")[2]
        if job.id != own + number or not number.isdecimal():
            raise Refused(f"{job.id} is not a job of {home}", field="home")

    def check_models(self, itinerary: Itinerary) -> None:
        """Raise `Refused` or `Corrupt` unless sites of the network signed how an agent's models
        were made and measured."""
        job = itinerary.job
        keys, verifiers = self.orders.sites(), self.orders.sites(Role.VERIFIER)
        lineage = Lineage(job=job.id, entries=tuple(job.lineage))
        for model in itinerary.models():
            behind = ancestry(lineage, model.manifest)
            check_model(behind, model.manifest, keys)
            for entry in behind.entries:
                if isinstance(entry.fact, Verification) and entry.fact.site not in verifiers:
                    raise Corrupt(f"{entry.fact.site} is not a verifier", field="facts")


def _last_holder(agent: Agent) -> SiteId:
    """The site that last took an agent over, by its facts; at first, its home."""
    for fact in reversed(agent.facts):
        match fact.event:
            case Planned(route=route) if route is not None:
                return route.visits[0].site
            case VerifiersChosen(assignments=assignments):
                for assigned in assignments:
                    if assigned.site is not None:
                        return assigned.site
    return agent.home
