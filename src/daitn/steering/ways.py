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
    remaining_s: Floats
    """Until it is at the next hop, as summaries say."""
    cost_usd: Floats
    vias: tuple[str, ...]
    """All next hops that there are."""


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
        served_s = offer.wait_s + offer.serve_s
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
        np.array(costs, float),
        (HERE, *routes.neighbours()),
    )


def as_learned(ways: Ways, lanes: Lanes, now_s: float) -> Ways:
    """The same ways, with the times that this forwarder expects by what it learned."""
    origins = {way.origin for way in ways.rows}
    under_way = {origin: lanes.under_way(origin, ways.vias) for origin in origins}
    expected_s = [_expected_s(way, lanes, under_way[way.origin], now_s) for way in ways.rows]
    return replace(ways, expected_s=np.array(expected_s, float))


def _expected_s(way: Way, lanes: Lanes, under_way: int, now_s: float) -> float:
    offer = way.offer
    # What went there from here since the summary was made waits there too.
    ours_s = offer.serve_s * (under_way // max(1, offer.amount))
    lane = lanes.lane(way.via, way.origin)
    told_s = 2.0 * way.distance_s + max(offer.wait_s, ours_s) + offer.serve_s
    return max(0.0, told_s + lane.bias_s(now_s), lane.oldest_s(now_s))


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
