"""The ways on which an object may go on, as columns: one row per origin and next hop.

This is a forwarder's cut of what it knows for one want, as QS-QRRT is a gateway's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from daitn.objects.decisions import Rejection
from daitn.steering.lanes import Lanes
from daitn.steering.routes import RouteTable
from daitn.steering.wire.summaries import Offer
from daitn.steering.wire.want import Capability, Want
from daitn.topology.qrrt.snapshot import Flags, Floats

__all__ = ["HERE", "Way", "Ways", "as_learned", "rejections", "ways_for"]

HERE = ""
"""The next hop of an object that is delivered at this site."""
WAIT_WEIGHS = 3.0
"""An object that waits makes those after it wait too, as in QIRCE. Here it weighs more, since other
forwarders see the same slot free before they hear of each other; tuned on the first seeds of
`benchmarks/aats_topologies.py`."""


@dataclass(frozen=True, slots=True)
class Way:
    """One row."""

    origin: str
    via: str
    """A neighbour, or `HERE`."""
    offer: Offer
    distance_s: float
    """From here."""
    remaining_s: float
    """From the neighbour, as it says."""

    @property
    def id(self) -> str:
        """For explanations: `origin via neighbour`."""
        return f"{self.origin} via {self.via}" if self.via else f"{self.origin} here"


@dataclass(frozen=True, slots=True)
class Ways:
    """Rows in the order of their ids, and what is computed of them, in that order."""

    rows: tuple[Way, ...]
    passes: Flags
    known_fit: Floats
    """0 where it rests on less than the want trusts."""
    expected_s: Floats
    """Until the answer is here, as far as this forwarder knows."""
    weighed_s: Floats
    """The same as it weighs: with waits as `WAIT_WEIGHS` has them, and with what is overdue."""
    remaining_s: Floats
    """Until it is at the next hop, as summaries say and as it weighs."""
    cost_usd: Floats


def ways_for(want: Want, routes: RouteTable) -> Ways:
    """All ways towards what is wanted, and which of them the want admits, by what summaries say."""
    rows: list[Way] = []
    for origin, offer in routes.offering(f"{want.capability}:{want.subject}"):
        if origin == routes.site:
            rows.append(Way(origin, HERE, offer, 0.0, 0.0))
            continue
        rows += [
            Way(origin, via.neighbour, offer, via.distance_s, via.remaining_s)
            for via in routes.routes_to(origin)
        ]
    rows.sort(key=lambda way: (way.origin, way.via, way.offer.key))
    remaining, fits, costs = [], [], []
    passes = []
    for way in rows:
        offer = way.offer
        served_s = WAIT_WEIGHS * offer.wait_s + offer.serve_s
        remaining.append(2.0 * way.remaining_s + served_s)
        fits.append(_known_fit(offer, want))
        costs.append(_cost_usd(offer, want))
        passes.append(next(_rejected(way, want), None) is None)
    return Ways(
        tuple(rows),
        np.array(passes, bool),
        np.array(fits, float),
        np.array(remaining, float),
        np.array(remaining, float),
        np.array(remaining, float),
        np.array(costs, float),
    )


def as_learned(ways: Ways, lanes: Lanes, now_s: float) -> Ways:
    """The same ways, with the times that this forwarder expects by what it learned."""
    expected_s, weighed_s = [], []
    for way in ways.rows:
        offer, lane = way.offer, lanes.lane(way.via, way.origin)
        wait_s = _wait_s(way, lanes, now_s)
        likely_s = max(0.0, 2.0 * way.distance_s + wait_s + offer.serve_s + lane.bias_s(now_s))
        expected_s.append(likely_s)
        extra_s = (WAIT_WEIGHS - 1.0) * wait_s
        weighed_s.append(max(likely_s + extra_s, lane.overdue_s(likely_s, now_s)))
    return replace(
        ways, expected_s=np.array(expected_s, float), weighed_s=np.array(weighed_s, float)
    )


def _wait_s(way: Way, lanes: Lanes, now_s: float) -> float:
    """For a slot there, by what is under way."""
    offer, load = way.offer, lanes.load(way.origin)
    slots = max(1, offer.amount)
    load.offered(offer.wait_s, _told_count(offer, slots), way.distance_s, now_s)
    return max(0.0, load.ahead() - slots + 1) * offer.serve_s / slots


def _told_count(offer: Offer, slots: int) -> float:
    """How many are under way where one more would wait so long. 0 where it would not wait: a slot
    is free then, and there is no telling how many are."""
    if offer.wait_s == 0.0 or offer.serve_s == 0.0:
        return 0.0
    return offer.wait_s * slots / offer.serve_s + slots - 1


def _known_fit(offer: Offer, want: Want) -> float:
    return offer.fit if offer.trust >= want.trust else 0.0


def _cost_usd(offer: Offer, want: Want) -> float:
    units = (
        want.examples if want.capability == Capability.DATA else want.tokens_in + want.tokens_out
    )
    return offer.price_usd * units / 1000.0


def rejections(ways: Ways, want: Want) -> tuple[Rejection, ...]:
    """Why each row that is not admitted is not."""
    return tuple(no for way in ways.rows for no in _rejected(way, want))


def _rejected(way: Way, want: Want) -> Iterator[Rejection]:
    offer = way.offer

    def no(name: str, reason: str, shortfall: float = 1.0, unit: str = "") -> Rejection:
        return Rejection(
            candidate=way.id,
            filter=name,
            reason=reason,
            field=name,
            shortfall=shortfall,
            unit=unit,
        )

    fit = _known_fit(offer, want)
    if fit < want.min_fit:
        yield no("min_fit", f"fit {fit:.3f} of at least {want.min_fit:.3f}", want.min_fit - fit)
    cost_usd = _cost_usd(offer, want)
    if want.max_cost_usd is not None and cost_usd > want.max_cost_usd:
        over = cost_usd - want.max_cost_usd
        yield no(
            "max_cost_usd", f"costs {cost_usd:.6f} USD of at most {want.max_cost_usd}", over, "USD"
        )
    if want.jurisdictions and offer.jurisdiction not in want.jurisdictions:
        yield no("jurisdictions", f"{offer.jurisdiction or 'nowhere'} is not admitted")
    if want.owners and offer.owner not in want.owners:
        yield no("owners", f"{offer.owner or 'nobody'} is not admitted")
    if want.unkept and offer.keeps:
        yield no("unkept", "what is asked there is kept")
