"""Feeds what nodes publish and measure into the live topology for inference (QRRT)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

import msgspec
from immutables import Map

from daitn.identity.evidence import EvidenceFilter
from daitn.identity.signing import check_attestation
from daitn.objects.descriptors import NodeDescriptor, Role
from daitn.objects.errors import DaitnError, Refused
from daitn.objects.findings import Attestation
from daitn.objects.identifiers import SiteId
from daitn.objects.messages import Demand, Sensed, Serving
from daitn.objects.readings import LinkReading
from daitn.objects.wire import decode
from daitn.tools import clock
from daitn.tools.entitled import EntitledNodes
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric, Message, Registration
from daitn.tools.membership import Membership
from daitn.tools.roster import LiveRoster
from daitn.tools.tasks import Tasks
from daitn.tools.throttled import ThrottledLog
from daitn.topology.qrrt.observation import Observation
from daitn.topology.qrrt.paths import paths_from
from daitn.topology.qrrt.snapshot import Paths, Qrrt
from daitn.topology.qrrt.state import QrrtState

__all__ = ["QrrtFeed"]

T = TypeVar("T")

log = logging.getLogger(__name__)
_DROPPED = ThrottledLog(log)

ATTESTED_TIMEOUT_S = 5.0
ROUTES_LAST_S = 0.25
"""Paths are recomputed this long after a link changed, as links are measured every few seconds.
Paths to changed rows are recomputed at once."""
LAPSES_WITHIN_S = 1.0
"""A deployment whose signature expires answers no longer than this."""
CLOCK_SET_S = 1.0
"""A larger change of the machine's clock against elapsed time is no drift within a second."""
BROKEN_FOR_S = 5.0
"""A site that could not be reached directly is tried directly again after this time."""


class QrrtFeed:
    """Keeps a QRRT up to date, and the paths from the site `origin` to its rows."""

    def __init__(
        self,
        fabric: Fabric,
        membership: Membership,
        origin: SiteId,
        roster: LiveRoster | None = None,
    ) -> None:
        """`roster`: against which names and weights of deployments are checked; `None` means they
        are trusted."""
        self._fabric = fabric
        self._membership = membership
        self._origin = origin
        self._roster = roster
        self._entitled = None if roster is None else EntitledNodes(roster.grants())
        self._state = QrrtState(scoped=roster is not None, origin=origin)
        self._evidence = EvidenceFilter()
        self._registrations: list[Registration] = []
        self._asking = Tasks()
        self._tasks = Tasks()
        self._members_changed = asyncio.Event()
        self._wall_ahead_s = _wall_ahead_s()
        """When deployments were last checked."""
        self._broken_until_s: dict[SiteId, float] = {}
        self._paths: tuple[Qrrt, Paths] | None = None
        self._links: Map[SiteId, Map[SiteId, LinkReading]] = Map()
        """The links from which all paths were last computed."""
        self._paths_at_s = 0.0

    async def start(self) -> None:
        for pattern, kind, take in (
            (keys.ALL_SENSED, Sensed, self._sensed),
            (keys.ALL_SERVING, Serving, self._serving),
            (keys.ALL_DEMAND, Demand, self._demand),
            (keys.ALL_ATTESTED, msgspec.Raw, self._attested),
        ):
            self._registrations.append(
                await self._fabric.subscribe(pattern, _reader(kind, take))  # type: ignore[arg-type]
            )
        self._membership.listen(self)
        if self._roster is not None and self._entitled is not None:
            # Not at once: a check may be what found that the roster has changed.
            self._roster.listen(self._members_changed.set)
            self._tasks.repeat(partial(self._check_when_due, self._entitled), "signatures")

    async def close(self) -> None:
        for registration in self._registrations:
            await registration.close()
        await self._asking.close()
        await self._tasks.close()

    def snapshot(self) -> Qrrt:
        """The current topology."""
        return self._state.snapshot()

    def paths(self, snapshot: Qrrt) -> Paths:
        """The best paths from the origin to the snapshot's rows."""
        now_s = clock.now_s()
        known = self._paths
        if known is not None:
            seen, paths = known
            if self._links is not snapshot.links and now_s >= self._paths_at_s + ROUTES_LAST_S:
                known = None
            elif seen.rows is snapshot.rows and seen.nodes is snapshot.nodes:
                return paths
        broken = frozenset(s for s, until_s in self._broken_until_s.items() if until_s > now_s)
        self._broken_until_s = {s: self._broken_until_s[s] for s in broken}
        paths = paths_from(snapshot, self._origin, now_s, broken, known)
        if known is None:
            self._links, self._paths_at_s = snapshot.links, now_s
        self._paths = snapshot, paths
        return paths

    def observe(self, site: SiteId, name: str, seen: Observation) -> None:
        """The origin observed how a deployment served a query."""
        self._state.observe(site, name, seen, clock.now_s())

    def unreachable(self, site: SiteId) -> None:
        """The origin could not connect to a site's API server: for a while, use other paths."""
        self._broken_until_s[site] = clock.now_s() + BROKEN_FOR_S
        self._paths = None

    def described(self, node: NodeDescriptor) -> None:
        node = self._evidence.well_signed(node)
        if self._entitled is None:
            self._state.described(node, clock.now_s())
            return
        self._note_clock()
        own, *others = self._entitled.described(node)
        self._state.described(own, clock.now_s())
        self._tell_entitled((own, *others))

    def came(self, site: SiteId) -> None:
        self._state.came(site, clock.now_s())
        node = self._membership.node(site)
        if node is not None and Role.VERIFIER in node.roles:
            self._asking.anew(site, self._ask_attested(site), f"findings of {site}")

    def lost(self, site: SiteId) -> None:
        self._state.lost(site, clock.now_s())

    def removed(self, site: SiteId) -> None:
        self._asking.end(site)
        if self._entitled is not None:
            self._tell_entitled(self._entitled.removed(site))
        self._state.removed(site, clock.now_s())

    async def _check_when_due(self, entitled: EntitledNodes) -> None:
        """Check all deployments again if the roster changes, a signature expires, or the machine's
        clock is set: it may have taken signatures to have expired, or to be of the future."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAPSES_WITHIN_S):
                await self._members_changed.wait()
        self._note_clock()
        if self._members_changed.is_set() or entitled.lapsed(clock.wall_s()):
            self._members_changed.clear()
            self._tell_entitled(entitled.checked_again())

    def _note_clock(self) -> None:
        ahead_s = _wall_ahead_s()
        if abs(ahead_s - self._wall_ahead_s) > CLOCK_SET_S:
            self._members_changed.set()
        self._wall_ahead_s = ahead_s

    def _tell_entitled(self, nodes: Iterable[NodeDescriptor]) -> None:
        for node in nodes:
            self._state.entitled(node, clock.now_s())

    async def _ask_attested(self, site: SiteId) -> None:
        """Request what the verifier found before this process subscribed."""
        try:
            answer = await self._fabric.request(
                keys.site_do(site, "attested"), b"", timeout_s=ATTESTED_TIMEOUT_S
            )
            for received in decode(answer, tuple[msgspec.Raw, ...]):
                self._attested(site, received)
        except DaitnError as error:
            log.info("%s does not send its findings: %s", site, error.problem)

    def _sensed(self, site: SiteId, sensed: Sensed) -> None:
        self._membership.heard_of(site, sensed.edition)
        for link in sensed.links:
            if link.source == site:
                self._state.absorb_link(link, clock.now_s())

    def _serving(self, site: SiteId, serving: Serving) -> None:
        _same(site, serving.site)
        self._state.absorb_serving(serving, clock.now_s())

    def _demand(self, site: SiteId, demand: Demand) -> None:
        _same(site, demand.site)
        self._state.absorb_demand(demand, clock.now_s())

    def _attested(self, site: SiteId, received: msgspec.Raw) -> None:
        attestation = decode(bytes(received), Attestation)
        _same(site, attestation.finding.verifier)
        node = self._membership.node(site)
        if node is None or Role.VERIFIER not in node.roles:
            raise Refused(f"{site} is not a verifier", field="verifier")
        check_attestation(attestation, node.public_key, bytes(received))
        self._state.absorb_finding(attestation.finding, clock.now_s())


def _wall_ahead_s() -> float:
    """By how much the machine's clock is ahead of the process's time."""
    return clock.wall_s() - clock.now_s()


def _same(site: SiteId, named: SiteId) -> None:
    if site != named:
        raise Refused(f"{site} claims to be {named}", field="site")


def _reader(kind: type[T], take: Callable[[SiteId, T], None]) -> Message:
    """A subscriber that decodes messages, and drops those that a site may not send."""

    async def receive(key: str, payload: bytes) -> None:
        try:
            take(keys.site_of(key), decode(payload, kind))
        except DaitnError as error:
            _DROPPED.warning(key, "dropping a message at %s: %s", key, error)

    return receive
