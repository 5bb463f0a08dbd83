"""A forwarder's state as reports for people."""

from __future__ import annotations

from daitn.objects.steering import HopReport, OriginReport, PendingReport, StepReport
from daitn.steering.custody import Custody
from daitn.steering.next_hops import LOCAL
from daitn.steering.pending import PendingEntry, RoutingStep
from daitn.steering.ranking import Outline
from daitn.steering.routes.table import RouteTable
from daitn.steering.wire.packet import Packet

__all__ = ["hop_reports", "origin_reports", "pending_reports"]


def pending_reports(custody: Custody, object_id: bytes) -> tuple[PendingReport, ...]:
    """The stored state of all branches of an object."""
    return tuple(
        _pending_report(custody.site, branch, entry)
        for branch, entry in custody.pending.of(object_id)
    )


def _pending_report(site: str, branch: int, entry: PendingEntry) -> PendingReport:
    return PendingReport(
        site=site,
        branch=branch,
        attempt=entry.packet.attempt,
        phase=entry.phase.value,
        came_from=entry.upstreams,
        since_s=entry.since_s,
        steps=tuple(_step_report(step) for step in entry.steps),
    )


def _step_report(step: RoutingStep) -> StepReport:
    choice, known = step.choice, step.known
    return StepReport(
        at_s=step.at_s,
        via=choice.via if choice else "",
        origin=choice.origin if choice else "",
        found=choice is not None,
        expected_s=choice.expected_s if choice else 0.0,
        decision=known.decision() if isinstance(known, Outline) else known,
    )


def hop_reports(trace: bytes) -> tuple[HopReport, ...]:
    """The hops of a trace. Raises `Corrupt`."""
    hops = Packet.of_trace(trace).hops()
    # Times are modulo 2^32 ms, and clocks of two sites may differ.
    return tuple(
        HopReport(
            site=hop.site,
            action=hop.action.name.lower(),
            after_s=_signed(hop.at_ms - hops[0].at_ms) / 1000,
        )
        for hop in hops
    )


def _signed(difference_ms: int) -> int:
    return (difference_ms + 2**31) % 2**32 - 2**31


def origin_reports(routes: RouteTable) -> tuple[OriginReport, ...]:
    """The reachable origins, this site first."""
    reports = []
    for origin in (routes.site, *routes.origins()):
        vias = routes.routes_to(origin)
        via, distance_s = (vias[0].neighbour, vias[0].distance_s) if vias else (LOCAL, 0.0)
        keys = tuple(sorted(offer.key for offer in routes.offered(origin)))
        reports.append(OriginReport(origin=origin, via=via, distance_s=distance_s, offers=keys))
    return tuple(reports)
