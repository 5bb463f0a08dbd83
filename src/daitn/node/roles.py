"""A node's roles for queries and other AI objects: facility, gateway, forwarder, verifier.

They share the membership and the live QRRT.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from daitn.files.state_folder import NodeState
from daitn.identity.keys import SigningKey
from daitn.identity.links import LinkIdentity
from daitn.identity.passes import PassBook
from daitn.identity.sealing import ReceiverKey
from daitn.learning.consultant import Consultant
from daitn.node.admission import Admission
from daitn.node.config import ForwarderConfig, GatewayConfig, NodeConfig
from daitn.node.forwarder.offers import serving_offers
from daitn.node.forwarder.query_client import PacketQueryClient
from daitn.node.forwarder.query_service import QueryService
from daitn.node.forwarder.role import ForwarderRole
from daitn.node.gateway.gateway import Gateway
from daitn.node.mandates import Mandates, stated_owner
from daitn.node.serving.facility import ADMITTED_ROLES, Facility
from daitn.node.usage.counts import UsageCounts
from daitn.node.usage.stating import Stating
from daitn.node.verifier.deployments import DeploymentVerifier
from daitn.objects.cordons import Cordon, CordonReport
from daitn.objects.descriptors import NodeDescriptor, Role
from daitn.objects.errors import DaitnError
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.messages import DeployModel
from daitn.objects.requests import (
    CutQuery,
    ExplainQuery,
    QueriesWanted,
    QueryList,
)
from daitn.objects.roster import Kind
from daitn.objects.usage import UsageSide
from daitn.objects.wire import decode, encode
from daitn.steering.wire.intent import Capability
from daitn.steering.wire.offers import Offer
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.tools.fabric.caller import caller, check_owner
from daitn.tools.fabric.protocol import Fabric, Handler
from daitn.tools.membership import FileKeys, Membership
from daitn.tools.mobility.protocol import BlobStore, ModelTransport
from daitn.tools.mobility.releases import Release
from daitn.tools.monitoring.metrics import Sample
from daitn.tools.monitoring.tracing import Tracer
from daitn.tools.qrrt_feed import QrrtFeed
from daitn.tools.roster import LiveRoster
from daitn.tools.tasks import Tasks
from daitn.topology.qrrt.export import export_query
from daitn.topology.qrrt.relevance import relevant_to
from daitn.topology.topics import TopicModel

__all__ = ["Roles"]

log = logging.getLogger(__name__)

_USAGE: Final = {
    UsageSide.GATEWAY: NodeState.USAGE_GATEWAY,
    UsageSide.FACILITY: NodeState.USAGE_FACILITY,
}

DEMAND_EVERY_S = 2.0
LAST_STATEMENT_S = 1.0
"""Time limit for the last report of a stopping node. Anything unacknowledged is reported after the
next start."""


class _Cordons:
    """Tells a forwarder which other sites are cordoned, by their descriptors."""

    def __init__(self, site: SiteId, forwarder: ForwarderRole) -> None:
        self._site = site
        self._forwarder = forwarder

    def described(self, node: NodeDescriptor) -> None:
        if node.site != self._site and Role.FORWARDER in node.roles:
            self._forwarder.cordon_other(node.site, str(node.cordon) if node.cordon else "")

    def came(self, site: SiteId) -> None:
        """See `described`."""

    def lost(self, site: SiteId) -> None:
        """Its cordon outlives its process."""

    def removed(self, site: SiteId) -> None:
        self._forwarder.cordon_other(site, "")


class Roles:
    """The roles that a node plays for AI objects in transit; others are None."""

    def __init__(
        self,
        config: NodeConfig,
        consultant: Consultant,
        fabric: Fabric,
        store: BlobStore,
        transport: ModelTransport,
        key: SigningKey,
        admission: Admission,
        changed: Callable[[], None],
        roster: LiveRoster | None,
        released: Release,
        tracer: Tracer,
        check_cordon: Callable[[str], None],
    ) -> None:
        """`check_cordon` raises `Refused` while the site accepts nothing new; `changed` is called
        when the result of `described` may have changed; `roster`: see `Membership`; `released` is
        called with the models that are deployed here."""
        self._site = config.site
        self._check_cordon = check_cordon
        self._roster = roster
        self._fabric = fabric
        self._tracer = tracer
        self._listed = roster.lists if roster is not None else None
        self._membership = Membership(
            fabric,
            FileKeys(Path(config.state) / NodeState.KNOWN_KEYS),
            roster=roster,
            verifiers=config.verifiers,
            here=config.site,
        )
        passes = PassBook(config.site, self._admitted_key)
        grants = None if roster is None else roster.grants()
        self._mandates: Mandates | None = None
        if grants is not None and roster is not None:
            self._mandates = Mandates(config.site, grants, passes, self._owner_of)
            roster.listen(self._mandates.forget)
        self._tasks = Tasks()
        self._stating: list[tuple[UsageCounts, Stating]] = []
        self._facility: Facility | None = None
        if config.facility is not None:
            self._facility = Facility(
                config,
                consultant,
                fabric,
                store,
                transport,
                passes.holder,
                changed,
                self._mandates.speaks_for if self._mandates else stated_owner,
                grants,
                key,
                released,
                tracer,
                self._counts(config, UsageSide.FACILITY, config.facility.states_every_s, key),
            )
        self._feed: QrrtFeed | None = None
        if config.gateway is not None or config.forwarder is not None:
            self._feed = QrrtFeed(fabric, self._membership, config.site, roster)
        self._query_service: QueryService | None = None
        self.forwarder: ForwarderRole | None = None
        if config.forwarder is not None:
            self.forwarder = self._forwarder_role(config, config.forwarder, key)
        self._gateway: Gateway | None = None
        if self._feed is not None and config.gateway is not None:
            self._gateway = self._new_gateway(config, config.gateway, self._feed, key, passes)
        self._verifier: DeploymentVerifier | None = None
        if Role.VERIFIER in config.roles:
            rng = random.Random()  # noqa: S311 - the order of questions is not secret
            self._verifier = DeploymentVerifier(
                config, fabric, self._membership, key, rng, admission
            )

    def _new_gateway(
        self,
        config: NodeConfig,
        gateway: GatewayConfig,
        feed: QrrtFeed,
        key: SigningKey,
        passes: PassBook,
    ) -> Gateway:
        topics = TopicModel()
        self._membership.listen(topics)
        return Gateway(
            config.site,
            gateway,
            feed,
            key,
            passes.holder,
            topics.classify,
            self._query_client(config.forwarder, key),
            config.tls,
            config.owner,
            self._mandates,
            self._tracer,
            self._counts(config, UsageSide.GATEWAY, gateway.states_every_s, key),
        )

    def _counts(
        self, config: NodeConfig, side: UsageSide, every_s: float, key: SigningKey
    ) -> UsageCounts:
        """The counts of a gateway or facility, to be reported."""
        folder = Path(config.state) / _USAGE[side]
        counts = UsageCounts(folder, config.site, side, clock.wall_s, every_s)
        self._stating.append((counts, Stating(self._fabric, key, counts, every_s)))
        return counts

    def _forwarder_role(
        self, config: NodeConfig, forwarder: ForwarderConfig, key: SigningKey
    ) -> ForwarderRole:
        role = ForwarderRole(
            config.site,
            forwarder,
            self._fabric,
            config.tls,
            self._link_identity(config.site, key),
            partial(self._roster.member, Kind.SITE) if self._roster else None,
            self._listed,
        )
        if self._facility is not None:
            facility = self._facility
            self._query_service = QueryService(
                config.site,
                key,
                lambda: facility.server,
                self._served,
                self._membership.key_of,
                [ReceiverKey.at(Path(path)) for path in forwarder.receives],
                config.tls,
                self._mandates,
                self._gateway_of if self._roster else None,
                self._tracer,
            )
            answers = dict.fromkeys((Capability.ANSWER, Capability.MODEL), self._query_service)
            role.provide(self._offers, answers)
        return role

    def _gateway_of(self, public_key: str) -> SiteId | None:
        """The gateway with this key in the roster."""
        member = self._roster.members().get(public_key) if self._roster else None
        if member is None or member.kind is not Kind.SITE or Role.GATEWAY not in member.roles:
            return None
        return SiteId(member.name)

    def _link_identity(self, site: SiteId, key: SigningKey) -> LinkIdentity | None:
        roster = self._roster
        if roster is None:
            return None

        def key_of(neighbour: SiteId) -> str | None:
            member = roster.member(Kind.SITE, neighbour)
            known = member is not None and Role.FORWARDER in member.roles
            return member.public_key if member is not None and known else None

        return LinkIdentity(site, key, roster.network, key_of, clock.now_s)

    def _query_client(
        self, config: ForwarderConfig | None, key: SigningKey
    ) -> PacketQueryClient | None:
        if config is None or self.forwarder is None:
            return None
        return PacketQueryClient(self.forwarder.runtime, key, config.classes, config.seal_to)

    def _served(self) -> tuple[tuple[str, Offer], ...]:
        assert self._feed is not None
        return serving_offers(self._feed.snapshot(), self._site)

    def _offers(self) -> tuple[Offer, ...]:
        return tuple(offer for _, offer in self._served())

    @staticmethod
    def has_any(config: NodeConfig) -> bool:
        """Whether the node plays any of these roles."""
        roles = {Role.FACILITY, Role.GATEWAY, Role.VERIFIER, Role.FORWARDER}
        return bool(roles & set(config.roles))

    def offer(self, node: NodeDescriptor) -> None:
        """Use only what the node's descriptor lists."""
        if self._verifier is not None:
            self._verifier.offer(node.verifier)

    async def start(self) -> None:
        """Start the servers. Raises `InvalidInput` if one cannot listen as the node's file says."""
        if self._facility is not None:
            await self._facility.start()
        if self._gateway is not None:
            await self._gateway.start()
            self._tasks.repeat(partial(self._publish_demand, self._gateway), "demand")

    async def listen(self) -> None:
        """Start to follow other nodes, once this one is described."""
        if self.forwarder is not None:
            self._membership.listen(_Cordons(self._site, self.forwarder))
        await self._membership.start()
        if self._feed is not None:
            await self._feed.start()
        if self.forwarder is not None:
            await self.forwarder.start()
        if self._verifier is not None:
            await self._verifier.start()
        for _, stating in self._stating:
            self._tasks.repeat(partial(self._state, stating), "usage")

    async def _state(self, stating: Stating) -> None:
        await stating.due()
        if self._facility is not None:
            self._facility.count_hosting()
        await stating.state()

    async def drain(self, timeout_s: float) -> None:
        """Finish the queries in progress, for at most `timeout_s`, and take no new ones.

        All of them go on meanwhile: a query of the gateway may still need the others.
        """
        parts = (self._gateway, self.forwarder, self._facility)
        await asyncio.gather(*(part.drain(timeout_s) for part in parts if part is not None))

    async def close(self) -> None:
        await self._tasks.close()
        for part in (
            self._verifier,
            self._gateway,
            self.forwarder,
            self._query_service,
            self._facility,
            self._feed,
            self._membership,
        ):
            if part is not None:
                await part.close()
        for counts, stating in self._stating:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_STATEMENT_S):
                    await stating.state()
            counts.close()

    def described(self, node: NodeDescriptor) -> NodeDescriptor:
        """The node's descriptor with the entries of these roles."""
        return msgspec.structs.replace(
            node,
            facility=self._facility.descriptor() if self._facility else None,
            gateway=self._gateway.descriptor() if self._gateway else None,
        )

    def announced(self) -> tuple[NodeDescriptor, ...]:
        """The available sites, as they describe themselves to this one."""
        return self._membership.nodes()

    def measured(self) -> Iterator[Sample]:
        """See `Measured`."""
        for part in (self._gateway, self._facility, self.forwarder, self._verifier):
            if part is not None:
                yield from part.measured()

    def reconfigure(self, config: NodeConfig) -> None:
        """Apply a changed file. Raises `InvalidInput`."""
        if self._gateway is not None and config.gateway is not None:
            self._gateway.reconfigure(config.gateway)

    def cordon(self, cordon: Cordon | None) -> None:
        """Accept nothing new while the site is cordoned; deployments placed by a control centre
        keep answering while it is drained. `None` means normal service."""
        why = str(cordon) if cordon is not None else ""
        if self._gateway is not None:
            self._gateway.closed = lambda: why
        if self._facility is not None:
            draining = cordon is not None and cordon.draining
            self._facility.close_to(
                lambda deployment: (
                    f"its site {why}" if why and not (draining and deployment.placed) else ""
                )
            )
        if self.forwarder is not None:
            self.forwarder.cordon(why)

    def occupied(self, report: CordonReport) -> CordonReport:
        """The report with the work in progress in these roles."""
        roles = (self._gateway, self._facility)
        return msgspec.structs.replace(
            report,
            queries=sum(role.in_progress for role in roles if role is not None),
            packets=self.forwarder.runtime.in_progress if self.forwarder else 0,
            deployments=self._facility.placed() if self._facility else (),
        )

    def models(self) -> frozenset[Digest]:
        """Weights that the facility needs."""
        return self._facility.models() if self._facility else frozenset()

    def handlers(self) -> dict[str, Handler]:
        """Request handlers of these roles, by verb."""
        handlers: dict[str, Handler] = {}
        if self._facility is not None:
            handlers |= {"deploy": self._on_deploy, "retire": self._facility.on_retire}
        if self._gateway is not None:
            handlers |= {
                "queries": self._on_queries,
                "explain": self._on_explain,
                "cut": self._on_cut,
            }
        if self.forwarder is not None:
            handlers |= self.forwarder.handlers()
        if self._verifier is not None:
            handlers["attested"] = self._verifier.on_attested
        return handlers

    def _admitted_key(self, site: SiteId) -> str | None:
        """The key of a site whose passes are admitted here; none for other sites."""
        node = self._membership.node(site)
        if node is None or not set(ADMITTED_ROLES) & set(node.roles):
            return None
        return node.public_key

    def _owner_of(self, site: SiteId) -> str | None:
        node = self._membership.node(site)
        return None if node is None else node.owner

    async def _on_deploy(self, key: str, payload: bytes) -> bytes:
        """`DeployModel` -> nothing: facility: fetch a model, load it and serve it; idempotent."""
        assert self._facility is not None
        if decode(payload, DeployModel).name not in self._facility.placed():
            self._check_cordon("deployments")
        return await self._facility.on_deploy(key, payload)

    async def _on_queries(self, key: str, payload: bytes) -> bytes:
        """`QueriesWanted` -> `QueryList`: gateway: how its latest queries were served."""
        assert self._gateway is not None
        wanted = decode(payload, QueriesWanted)
        asker = caller()
        if asker is not None and asker.kind is Kind.OWNER:
            wanted = msgspec.structs.replace(wanted, owner=asker.name)
        found = self._gateway.queries(wanted.limit, wanted.owner, wanted.without, wanted.before)
        return encode(QueryList(queries=found))

    async def _on_explain(self, key: str, payload: bytes) -> bytes:
        """`ExplainQuery` -> `QueryExplained`: gateway: one query, and its decision, recomputed, or
        why there is none."""
        assert self._gateway is not None
        explained = self._gateway.explain(decode(payload, ExplainQuery).query)
        check_owner(explained.query.owner, f"query {explained.query.id}")
        return encode(explained)

    async def _on_cut(self, key: str, payload: bytes) -> bytes:
        """`CutQuery` -> `QueryCut`: gateway: the QS-QRRT of a hypothetical query."""
        assert self._feed is not None
        intent = msgspec.structs.replace(decode(payload, CutQuery).intent, origin=self._site)
        snapshot, now_s = self._feed.snapshot(), clock.now_s()
        paths = self._feed.paths(snapshot).apart()

        def exported() -> bytes:
            nobody = np.zeros(len(snapshot.rows))
            return encode(export_query(relevant_to(snapshot.apart(), intent, paths, nobody, now_s)))

        return await asyncio.to_thread(exported)

    async def _publish_demand(self, gateway: Gateway) -> None:
        await asyncio.sleep(DEMAND_EVERY_S)
        try:
            demand = encode(gateway.demand(clock.now_s()))
            await self._fabric.publish(keys.site_demand(self._site), demand)
        except DaitnError as error:
            log.debug("the demand was not published: %s", error)
