"""The role `forwarder` of a node: links, offers, services and requests of operators."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from daitn.identity.links import LinkIdentity
from daitn.node.config import ForwarderConfig
from daitn.node.forwarder.metrics import measured
from daitn.node.forwarder.offers import granted, home
from daitn.node.forwarder.runtime import ForwarderRuntime, NotServed, PacketService, new_id
from daitn.objects.errors import DaitnError, InvalidInput, NotFound
from daitn.objects.identifiers import SiteId
from daitn.objects.intents import Preference
from daitn.objects.roster import Member
from daitn.objects.steering import (
    ADVICE_LASTS_S,
    Advice,
    ControlMode,
    ForwarderReport,
    LinkReport,
    PendingReport,
    Probe,
    ProbeReport,
    Steer,
    TraceQuestion,
    TraceReport,
)
from daitn.objects.wire import decode, encode
from daitn.steering.reports import hop_reports, origin_reports, pending_reports
from daitn.steering.scoring import STEERING
from daitn.steering.settings import ForwarderSettings
from daitn.steering.wire.intent import Capability, PacketIntent, decode_intent, encode_intent
from daitn.steering.wire.offers import Offer
from daitn.steering.wire.packet import MOST_HOPS, Packet, PacketKind
from daitn.steering.wire.replies import Reason, Refusal, read_refusal
from daitn.tools.adjacency.settings import AdjacencySettings
from daitn.tools.adjacency.zenoh import ZenohAdjacency, open_adjacency
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric, Handler, Registration
from daitn.tools.monitoring.metrics import Sample
from daitn.tools.tasks import Tasks

__all__ = ["ForwarderRole"]

log = logging.getLogger(__name__)

OFFERED_EVERY_S = 0.25
"""How often the site's offers are refreshed."""
DRAIN_LOOKED_AT_S = 0.05
TRACE_TIMEOUT_S = 5.0
"""Time for a forwarder on an object's path to report its entries."""


class ForwarderRole:
    """See the package. The site's other roles `provide` its offers and services."""

    def __init__(
        self,
        site: SiteId,
        config: ForwarderConfig,
        fabric: Fabric,
        tls: str = "",
        identity: LinkIdentity | None = None,
        member_of: Callable[[SiteId], Member | None] | None = None,
        listed: Callable[[str], bool] | None = None,
    ) -> None:
        """`tls`: folder of the certificates for links that begin with `tls/`; `identity`: see
        `open_adjacency`; `member_of`: the sites of the roster, if there is one; `listed`: see
        `AdjacencySettings`."""
        self._identity = identity
        self._site = site
        self._config = config
        self._fabric = fabric
        self._tls = tls
        self._listed = listed
        self._offers: list[Callable[[], tuple[Offer, ...]]] = []
        self._services: dict[str, PacketService] = {}
        settings = ForwarderSettings(owner_per_s=config.owner_per_s, owner_burst=config.owner_burst)
        self.runtime = ForwarderRuntime(site, self, settings)
        if member_of is not None:
            self.runtime.granted = partial(granted, member_of=member_of)
        self._mode = config.mode
        self._own_prefer: dict[str, float] = {}
        """Weights set by this site's operator."""
        self._advice = Advice(version=0)
        self._advised_at_s = float("-inf")
        self._links: ZenohAdjacency | None = None
        self._subscription: Registration | None = None
        self._draining = self._cordoned = False
        self._tasks = Tasks()

    def provide(
        self, offers: Callable[[], tuple[Offer, ...]], services: Mapping[str, PacketService]
    ) -> None:
        """`offers` returns the current offers; `services` serve them, by capability."""
        self._offers.append(offers)
        self._services.update(services)

    async def start(self) -> None:
        """Raises `InvalidInput` if it cannot listen as the node's file says."""
        settings = AdjacencySettings(
            site=self._site,
            listen=self._config.listen,
            neighbours=self._config.neighbours,
            anybody=self._config.anybody,
            scout=self._config.scout,
            tls=self._tls,
            listed=self._listed,
        )
        self.runtime.offer((home(self._site),))
        self._links = await open_adjacency(settings, self.runtime, self._identity)
        self.runtime.join(self._links)
        log.info("listening for neighbours at %s", ", ".join(self._links.endpoints))
        self._subscription = await self._fabric.subscribe(keys.center_advice(), self._on_advice)
        self._tasks.repeat(self._refresh_offers, "offers")

    async def drain(self, timeout_s: float) -> None:
        """Offer nothing any more, and finish what is served here and what this site has sent, for
        at most `timeout_s`. Objects that only pass through find another way."""
        self._draining = True
        self._offer()
        until_s = time.monotonic() + timeout_s
        while self.runtime.busy and time.monotonic() < until_s:  # noqa: ASYNC110
            await asyncio.sleep(DRAIN_LOOKED_AT_S)

    def cordon(self, why: str) -> None:
        """Offer nothing, forward nothing and accept no objects except this site's own; an empty
        `why` ends that."""
        self._cordoned = bool(why)
        self.runtime.core.custody.closed = why
        self.runtime.core.routes.withdraw(bool(why))
        self._offer()

    def cordon_other(self, site: SiteId, why: str) -> None:
        """Send nothing to another site that is out of service; an empty `why` means it is back."""
        self.runtime.core.routes.cordon(site, why)

    async def close(self) -> None:
        """Close the links; neighbours notice at once."""
        if self._subscription is not None:
            await self._subscription.close()
        await self._tasks.close()
        if self._links is not None:
            await self._links.close()
        await self.runtime.close()

    def handlers(self) -> dict[str, Handler]:
        """This role's request handlers, by verb."""
        return {
            "forwarder": self._on_report,
            "probe": self._on_probe,
            "trace": self._on_trace,
            "steer": self._on_steer,
        }

    async def serve(self, packet: Packet, intent: PacketIntent) -> bytes:
        """See `PacketService`: passes an object to the service of its capability."""
        if packet.kind is PacketKind.PROBE:
            question = decode(packet.payload, TraceQuestion)
            return encode(self._pending(question.object))
        service = self._services.get(intent.capability)
        if service is None:
            raise NotServed(Refusal(Reason.FAILED, f"this site does not serve {intent.capability}"))
        return await service.serve(packet, intent)

    # Offers

    async def _refresh_offers(self) -> None:
        self._apply()
        self._offer()
        await asyncio.sleep(OFFERED_EVERY_S)

    def _offer(self) -> None:
        silent = self._draining or self._cordoned
        offered = [] if silent else [offer for of in self._offers for offer in of()]
        self.runtime.offer((home(self._site), *offered))

    # Advice and settings

    async def _on_advice(self, key: str, payload: bytes) -> None:
        with contextlib.suppress(DaitnError):
            self._advice = decode(payload, Advice)
            self._advised_at_s = time.monotonic()
            self._apply()

    @property
    def mode(self) -> ControlMode:
        """The control mode in force."""
        advised = self._advice.mode if self._advised else None
        return advised or self._mode

    @property
    def _advised(self) -> bool:
        """Whether there is valid advice."""
        return (
            self._mode is not ControlMode.STANDALONE
            and time.monotonic() - self._advised_at_s < ADVICE_LASTS_S
        )

    def _prefer(self) -> dict[str, float]:
        return {**(self._advice.prefer if self._advised else {}), **self._own_prefer}

    def _apply(self) -> None:
        """Apply the weights and the domain in force."""
        try:
            self.runtime.core.custody.rankings.advise(_preferences(self._prefer()))
        except InvalidInput as error:
            log.warning("the advice is ignored: %s", error)
        hierarchical = self.mode is ControlMode.HIERARCHICAL
        self.runtime.set_domain(self._config.domain if hierarchical else "")

    async def _on_steer(self, key: str, payload: bytes) -> bytes:
        """`Steer` -> `ForwarderReport`: forwarder: change its `ControlMode` and weights until it
        restarts."""
        steer = decode(payload, Steer)
        STEERING.weighted(_preferences(steer.prefer or {}))
        if steer.reset:
            self._mode, self._own_prefer = self._config.mode, {}
        if steer.prefer is not None:
            self._own_prefer = dict(steer.prefer)
        if steer.mode is not None:
            self._mode = steer.mode
        self._apply()
        return encode(self.report())

    # Reports

    def report(self) -> ForwarderReport:
        """The forwarder's state and counts. It may be asked before it listens."""
        links = {} if self._links is None else self._links.stats()
        return ForwarderReport(
            site=self._site,
            mode=self.mode,
            domain=self._config.domain,
            advised=self._advised,
            prefer=self._prefer(),
            links=tuple(
                LinkReport(
                    neighbour=neighbour,
                    up=link.up,
                    cost_s=link.cost_s,
                    downs=link.downs,
                    messages_in=link.messages_in,
                    messages_out=link.messages_out,
                    dropped=link.dropped_in + link.dropped_out,
                )
                for neighbour, link in sorted(links.items())
            ),
            origins=origin_reports(self.runtime.core.routes),
            objects=len(self.runtime.core.custody.pending),
            counts=dict(self.runtime.counts),
        )

    def measured(self) -> Iterator[Sample]:
        """See `Measured`."""
        if self._links is not None:
            yield from measured(self.report(), self.runtime.drops, self.runtime.hops)

    async def _on_report(self, key: str, payload: bytes) -> bytes:
        """nothing -> `ForwarderReport`: forwarder: its state, with a `LinkReport` for each link and
        an `OriginReport` for each origin."""
        return encode(self.report())

    async def _on_probe(self, key: str, payload: bytes) -> bytes:
        """`Probe` -> `ProbeReport`: forwarder: send a probe; its path is a list of `HopReport`."""
        probe = decode(payload, Probe)
        decode_intent(probe.intent)
        began_s = time.monotonic()
        deadline_ms = int(1000 * (self.runtime.now_s() + probe.timeout_s))
        packet = Packet(
            PacketKind.PROBE,
            new_id(),
            probe.intent,
            hop_limit=probe.hop_limit,
            deadline_ms=deadline_ms,
        )
        back = await self.runtime.send(packet)
        taken_s = time.monotonic() - began_s
        refused = ""
        trace = back.payload
        if back.kind is PacketKind.REFUSAL:
            refusal = read_refusal(back)
            refused = f"{refusal.reason.name}: {refusal.detail}".rstrip(": ")
            trace = back.trace
        return encode(
            ProbeReport(
                object=packet.object_id.hex(),
                hops=hop_reports(trace),
                taken_s=taken_s,
                refused=refused,
            )
        )

    # Traces

    def _pending(self, object_: str) -> tuple[PendingReport, ...]:
        return pending_reports(self.runtime.core.custody, bytes.fromhex(object_))

    async def _on_trace(self, key: str, payload: bytes) -> bytes:
        """`TraceQuestion` -> `TraceReport`: forwarder: follow an object and ask every forwarder on
        its path for its entry, a `PendingReport` with a `StepReport` for each choice."""
        question = decode(payload, TraceQuestion)
        here = self._pending(question.object)
        if not here:
            raise NotFound(
                f"this site has no entry for {question.object}",
                field="object",
                fix="ask the site that sent it; entries expire after a while",
            )
        # All who are known to have had it at the same time: some may be silent.
        found = {str(self._site): here}
        asked: dict[asyncio.Task[tuple[PendingReport, ...]], str] = {}
        ahead = _next_sites(here)
        try:
            while True:
                for site in ahead:
                    if site not in found and len(found) < MOST_HOPS:
                        found[site] = ()
                        asked[asyncio.create_task(self._ask(site, question))] = site
                if not asked:
                    break
                done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    found[asked.pop(task)] = task.result()
                ahead = [site for task in done for site in _next_sites(task.result())]
        finally:
            for task in asked:
                task.cancel()
        report = TraceReport(
            object=question.object,
            pending=tuple(entry for entries in found.values() for entry in entries),
            silent=tuple(site for site, entries in found.items() if not entries),
        )
        return encode(report)

    async def _ask(self, site: str, question: TraceQuestion) -> tuple[PendingReport, ...]:
        packet = Packet(
            PacketKind.PROBE,
            new_id(),
            encode_intent(PacketIntent(Capability.HOME, site, trust=0)),
            encode(question),
            deadline_ms=int(1000 * (self.runtime.now_s() + TRACE_TIMEOUT_S)),
        )
        back = await self.runtime.send(packet)
        if back.kind is PacketKind.REFUSAL:
            return ()
        try:
            return decode(back.payload, tuple[PendingReport, ...])
        except DaitnError as error:
            log.warning("what %s says of %s was rejected: %s", site, question.object, error)
            return ()


def _preferences(prefer: Mapping[str, float]) -> tuple[Preference, ...]:
    return tuple(Preference(scorer=name, weight=weight) for name, weight in prefer.items())


def _next_sites(pending: list[PendingReport] | tuple[PendingReport, ...]) -> list[str]:
    vias = [step.via for entry in pending for step in entry.steps if step.via]
    return [*dict.fromkeys(vias)]
