"""Checks of a running network: connected sites, clocks, versions and links."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

from daitn.identity.roster import RosterFile, open_roster
from daitn.oam.doctor.diagnoses import Check, Diagnosis, fine, problem, warning
from daitn.oam.words import doubts
from daitn.objects.addresses import host_of, is_loopback
from daitn.objects.cordons import CordonReport
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.errors import ClocksDiffer, DaitnError
from daitn.objects.identifiers import JobId, SiteId
from daitn.objects.requests import ReplicaView
from daitn.objects.roster import Roster, SignedRoster
from daitn.objects.text import some
from daitn.objects.wire import decode
from daitn.topology.export import LinkView, TopologyView
from daitn.topology.partitions import KNOWN_FOR_S
from daitn.topology.qrrt.served import ServedModel
from daitn.topology.relevance import STALE_AFTER_S
from daitn.topology.snapshot import SiteState

__all__ = [
    "JOIN_ANEW",
    "check_clocks",
    "check_endpoints",
    "check_jobs",
    "check_paths",
    "check_replicas",
    "check_roster",
    "check_served",
    "check_sites",
    "is_of_network",
]

_SKEW_WARN_S: Final = 5.0
_SKEW_MOST_S: Final = 60.0
"""Signed messages are accepted for two minutes before and after their time."""
_CONNECT_WITHIN_S: Final = 3.0
_AT_ONCE: Final = 32
JOIN_ANEW: Final = (
    "correct `center`; or let it join the control centre's network, with another `state` folder: "
    "`daitn network join INVITATION --to FOLDER`"
)
"""What to do about a process of another network than its control centre."""
_FIX_ANSWERS: Final = {
    "two-faced": "ask its owner why. It gets no queries while most verifiers say so, until 200 "
    "single questions show no difference; `daitn network revoke site SITE` removes its site",
    "degraded": "see its facility's log. It gets no queries while most verifiers say so, until it "
    "is as good as before",
    "unanswered": "see the logs of its facility and of the gateways, and their limits",
    "contradicted": "compare that verifier's test set with the others'; its figure does not count",
}
"""What to do about deployments, by what verifiers say of them."""
_FIX_CLOCK: Final = "set it: `timedatectl set-ntp true`, or run chrony"


def check_sites(sites: Sequence[SiteState], version: str) -> Iterator[Diagnosis]:
    """Whether the sites are connected, complete, in service, and of one version; `version` is
    ours."""
    for site in sites:
        node = site.descriptor
        name = f"site {node.site}"
        if not site.alive:
            yield problem(
                Check.ALIVE,
                name,
                "it is not connected now",
                "start it; see its log, and run `daitn doctor -c FILE` on its machine",
            )
        for entry in node.left_out:
            yield problem(
                Check.LEFT_OUT,
                name,
                f"it left out {entry.field} {entry.name}: {entry.reason}",
                "correct its file, and restart it",
            )
        if cordon := node.cordon:
            yield warning(Check.CORDON, name, f"it {cordon}", f"`daitn uncordon {node.site}`")
    yield from _versions([site.descriptor for site in sites if site.alive], version)
    if sites and all(site.alive for site in sites):
        yield fine(Check.ALIVE, "network", f"all {len(sites)} sites are connected")


def check_jobs(unreadable: Sequence[JobId]) -> Iterator[Diagnosis]:
    """Whether the control centre can read all of its jobs."""
    for job in unreadable:
        yield problem(
            Check.DATABASE,
            f"job {job}",
            "its events in the control centre's database are damaged, and it is set aside",
            f"see `daitn describe job {job}`; restore the latest backup in which it is whole",
        )


def check_served(models: Sequence[ServedModel]) -> Iterator[Diagnosis]:
    """What verifiers say against deployments: a problem if it takes one out of service."""
    well = True
    for one in models:
        for kind, what in doubts(one).items():
            well = False
            out = one.two_faced if kind == "two-faced" else kind == "degraded" and one.degraded
            found = problem if out else warning
            fix = _FIX_ANSWERS[kind].replace("SITE", one.site)
            yield found(Check.ANSWERS, f"{one.name} at {one.site}", what, fix)
    if models and well:
        yield fine(
            Check.ANSWERS, "network", f"verifiers say nothing against {len(models)} deployments"
        )


def check_replicas(replicas: Sequence[ReplicaView]) -> Iterator[Diagnosis]:
    """Whether another control centre would take over."""
    connected = [one for one in replicas if not one.is_silent]
    for one in replicas:
        if one not in connected:
            yield warning(
                Check.STANDBY,
                f"control centre {one.replica}",
                f"it has not shown itself for {one.silent_s:.0f} s",
                "start it; see its log, and whether it reaches the database",
            )
    standing_by = sum(not one.leads for one in connected)
    if replicas and not standing_by:
        yield problem(
            Check.STANDBY,
            "network",
            "no standby would take over from the leading control centre",
            "start another one with the same database",
        )
    elif standing_by:
        yield fine(Check.STANDBY, "network", f"{standing_by} would take over")


def _versions(nodes: Sequence[NodeDescriptor], version: str) -> Iterator[Diagnosis]:
    ours = f"daitn {version}"
    counted = Counter(node.software for node in nodes)
    for software in sorted(counted.keys() - {ours}):
        names = [node.site for node in nodes if node.software == software]
        yield warning(
            Check.VERSION,
            some(names),
            f"{software} runs there, {ours} here",
            "bring all to one version, one site at a time: `daitn drain SITE`, install, start, "
            "`daitn uncordon SITE`",
        )
    if counted.keys() == {ours}:
        yield fine(Check.VERSION, "network", f"all run {ours}")


async def check_clocks(
    sites: Sequence[SiteId],
    ask: Callable[[SiteId], Awaitable[CordonReport]],
    wall_s: Callable[[], float],
) -> list[Diagnosis]:
    """How far each site's clock differs from this machine's; the error is half of the round
    trip."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def check(site: SiteId) -> Diagnosis | None:
        async with turns:
            asked_s, began_s = wall_s(), time.monotonic()
            try:
                report = await ask(site)
            except ClocksDiffer as error:  # It took no message of ours.
                return problem(Check.CLOCK, f"site {site}", error.problem, _FIX_CLOCK)
            except DaitnError:
                return None
            if not report.clock_s:
                return None
            error_s = (time.monotonic() - began_s) / 2
            return _clock(site, report.clock_s - asked_s - error_s, error_s)

    found = [finding for finding in await asyncio.gather(*map(check, sites)) if finding]
    if found and all(finding.level == "ok" for finding in found):
        return [
            fine(Check.CLOCK, "network", f"the clocks of {len(found)} sites agree with this one")
        ]
    return [finding for finding in found if finding.level != "ok"]


def _clock(site: SiteId, ahead_s: float, error_s: float) -> Diagnosis:
    off_s = abs(ahead_s) - error_s
    what = f"its clock is {abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} this one"
    if off_s > _SKEW_MOST_S:
        return problem(Check.CLOCK, f"site {site}", what, _FIX_CLOCK)
    if off_s > _SKEW_WARN_S:
        return warning(Check.CLOCK, f"site {site}", what, _FIX_CLOCK)
    return fine(Check.CLOCK, f"site {site}", what)


def check_paths(topology: TopologyView) -> Iterator[Diagnosis]:
    """Sites to which others cannot connect: behind a NAT or a firewall, according to both sides'
    measurements."""
    links = {(link.source, link.target): link for link in topology.links}
    lasting = [
        site.site
        for site in topology.sites
        if site.alive and topology.at_s - site.changed_at_s >= KNOWN_FOR_S
    ]
    cut: dict[SiteId, list[SiteId]] = {}
    for place, one in enumerate(lasting):
        for other in lasting[place + 1 :]:
            if _lost(links.get((one, other))) and _lost(links.get((other, one))):
                cut.setdefault(one, []).append(other)
                cut.setdefault(other, []).append(one)
    if len(lasting) > 1 and not cut:
        yield fine(Check.WAY, "network", f"{len(links)} links between sites are measured")
    # Of two that cannot reach each other, blame the one that reaches fewer.
    while cut:
        site = max(sorted(cut), key=lambda name: len(cut[name]))
        others = cut.pop(site)
        for other in others:
            cut[other].remove(site)
            if not cut[other]:
                del cut[other]
        yield problem(
            Check.WAY,
            f"site {site}",
            f"it cannot reach {', '.join(sorted(others)[:5])}, nor they it: a NAT or a firewall "
            f"blocks both directions",
            "open the port of its `listen`, or set `listen: []` in its file, so that the control "
            "centre relays for it",
        )


def _lost(link: LinkView | None) -> bool:
    if link is None or link.rtt_s is not None or link.loss is None:
        return False
    return link.loss.value >= 1.0 and link.loss.age_s <= STALE_AFTER_S


async def check_endpoints(nodes: Sequence[NodeDescriptor]) -> list[Diagnosis]:
    """Whether the servers of gateways and facilities can be reached from this machine."""
    turns = asyncio.Semaphore(_AT_ONCE)
    endpoints = [
        (node.site, what, part.endpoint)
        for node in nodes
        for what, part in (("facility", node.facility), ("gateway", node.gateway))
        if part is not None
    ]

    async def check(site: SiteId, what: str, endpoint: str) -> Diagnosis:
        subject = f"{what} at {site}"
        try:
            async with turns, asyncio.timeout(_CONNECT_WITHIN_S):
                address = urlsplit(endpoint)
                _, writer = await asyncio.open_connection(address.hostname, address.port)
        except (OSError, TimeoutError, ValueError) as error:
            local = is_loopback(host_of(endpoint))
            why = "it is an address of that machine alone" if local else str(error) or "no answer"
            return problem(
                Check.ENDPOINT,
                subject,
                f"{endpoint} is not reached from here: {why}",
                f"set `{what}.listen` to an address of its network, or `{what}.advertise` to the "
                f"address at which others reach it, and open its port",
            )
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return fine(Check.ENDPOINT, subject, f"{endpoint} is reached from here")

    return list(await asyncio.gather(*(check(*endpoint) for endpoint in endpoints)))


def check_roster(subject: str, own: RosterFile, theirs: SignedRoster, *, runs: bool) -> Diagnosis:
    """Whether a process has its control centre's roster, of one network; one that does not run gets
    it when it starts. Raises `DaitnError` if either cannot be read."""
    mine, newest = own.opened(), decode(theirs.roster, Roster)
    if not is_of_network(theirs, own.root):
        if mine.network == newest.network:
            other = f"of another network that is called {newest.network} too"
        else:
            other = f"of {newest.network}"
        return problem(
            Check.ROSTER,
            subject,
            f"its roster is of the network {mine.network}, the control centre's is {other}",
            JOIN_ANEW,
        )
    if mine.version < newest.version and runs:
        return problem(
            Check.ROSTER,
            subject,
            f"its roster is version {mine.version}, the network has {newest.version}",
            "let it reach its control centre, which distributes the newest; or copy `roster.json` "
            "from the operator's folder into its `state`, and restart it",
        )
    which = f"roster {mine.version} of {mine.network}, the control centre has {newest.version}"
    return fine(Check.ROSTER, subject, which)


def is_of_network(roster: SignedRoster, root: str) -> bool:
    """Whether a roster is of the network with this root key."""
    try:
        open_roster(roster, root, -math.inf)
    except DaitnError:
        return False
    return True
