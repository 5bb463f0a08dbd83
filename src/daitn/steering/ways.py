"""The ways on which an object may go on, as columns: one row per origin and next hop.

This is a forwarder's cut of what it knows for one want, as QS-QRRT is a gateway's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from daitn.objects.decisions import Rejection
from daitn.steering.lanes import Lanes
from daitn.steering.routes import RouteTable
from daitn.steering.wire.summaries import Offer
from daitn.steering.wire.want import Capability, Want
from daitn.topology.qrrt.snapshot import Flags, Floats

__all__ = [
    "HERE", "MOST_BY_VIA", "MOST_OUT", "MOST_WAYS", "Reach", "Way", "Ways", "as_learned",
    "best_ways", "id_of", "reach_of", "rejections", "rows_of", "ways_for",
]  # fmt: skip

HERE = ""
"""The next hop of an object that is delivered at this site."""
WAIT_WEIGHS = 3.0
"""An object that waits makes those after it wait too, as in QIRCE. Here it weighs more, since other
forwarders see the same slot free before they hear of each other; tuned on the first seeds of
`benchmarks/aats_topologies.py`."""
MOST_WAYS = 64
"""Of more, only the most promising are ranked. No packet is tried at more sites."""
MOST_BY_VIA = 8
"""So many by each neighbour are ranked as well: a packet may have been at the others."""
MOST_OUT = 20
"""Ways that are not admitted, of more than `MOST_WAYS`: for explanations."""


class Way(msgspec.Struct, frozen=True, gc=False):
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
        """For explanations."""
        return id_of(self.origin, self.via)


def id_of(origin: str, via: str) -> str:
    """What a way is called: `origin via neighbour`, or `origin here`."""
    return f"{origin} via {via}" if via else f"{origin} here"


@dataclass(frozen=True, slots=True)
class Reach:
    """All ways towards one key by what summaries say, for all wants of that key. Rows in the order
    of their ids."""

    rows: tuple[Way, ...]
    via: NDArray[np.intp]
    """The neighbour's place among their names."""
    fit: Floats
    trust: Floats
    remaining_s: Floats
    """As in `Ways`."""
    price_usd: Floats


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


def reach_of(key: str, routes: RouteTable) -> Reach:
    """All ways towards who offers a key."""
    rows: list[Way] = []
    for origin, offer in routes.offering(key):
        if origin == routes.site:
            rows.append(Way(origin, HERE, offer, 0.0, 0.0))
            continue
        rows += [
            Way(origin, via.neighbour, offer, via.distance_s, via.remaining_s)
            for via in routes.routes_to(origin)
        ]
    rows.sort(key=lambda way: (way.origin, way.via, way.offer.key))
    names = {via: place for place, via in enumerate(sorted({way.via for way in rows}))}
    offers = [way.offer for way in rows]
    remaining_s = np.array([way.remaining_s for way in rows], float)
    served_s = WAIT_WEIGHS * np.array([offer.wait_s for offer in offers], float)
    served_s += np.array([offer.serve_s for offer in offers], float)
    return Reach(
        tuple(rows),
        np.array([names[way.via] for way in rows], np.intp),
        np.array([offer.fit for offer in offers], float),
        np.array([offer.trust for offer in offers], float),
        2.0 * remaining_s + served_s,
        np.array([offer.price_usd for offer in offers], float),
    )


def ways_for(want: Want, reach: Reach) -> Ways:
    """All ways towards what is wanted, and which of them the want admits, by what summaries say."""
    units = (
        want.examples if want.capability == Capability.DATA else want.tokens_in + want.tokens_out
    )
    remaining_s = reach.remaining_s
    ways = Ways(
        reach.rows,
        np.ones(len(reach.rows), bool),
        np.where(reach.trust >= want.trust, reach.fit, 0.0),
        remaining_s,
        remaining_s,
        remaining_s,
        reach.price_usd * units / 1000.0,
    )
    for failed in _failed(ways, want).values():
        np.logical_and(ways.passes, ~failed, out=ways.passes)
    return ways


def best_ways(ways: Ways, reach: Reach, promised: Floats) -> NDArray[np.intp]:
    """The rows worth ranking by what they promise (below 0: not admitted): all, unless they are
    very many."""
    if len(ways.rows) <= MOST_WAYS:
        return np.arange(len(ways.rows))
    best_first = np.argsort(-promised, kind="stable")[: np.count_nonzero(ways.passes)]
    via = reach.via[best_first]
    kept = [best_first[:MOST_WAYS], (~ways.passes).nonzero()[0][:MOST_OUT]]
    kept += [best_first[via == each][:MOST_BY_VIA] for each in range(reach.via.max() + 1)]
    return np.unique(np.concatenate(kept))


def rows_of(ways: Ways, kept: NDArray[np.intp]) -> Ways:
    """Some of the rows."""
    if len(kept) == len(ways.rows):
        return ways
    return Ways(
        tuple(ways.rows[i] for i in kept.tolist()),
        ways.passes[kept],
        ways.known_fit[kept],
        ways.expected_s[kept],
        ways.weighed_s[kept],
        ways.remaining_s[kept],
        ways.cost_usd[kept],
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


def _failed(ways: Ways, want: Want) -> dict[str, Flags]:
    """By filter, the rows that it does not admit."""
    offers = [way.offer for way in ways.rows] if want.jurisdictions or want.owners else []
    failed = {"min_fit": ways.known_fit < want.min_fit}
    if want.max_cost_usd is not None:
        failed["max_cost_usd"] = ways.cost_usd > want.max_cost_usd
    if want.jurisdictions:
        places = [offer.jurisdiction not in want.jurisdictions for offer in offers]
        failed["jurisdictions"] = np.array(places, bool)
    if want.owners:
        failed["owners"] = np.array([offer.owner not in want.owners for offer in offers], bool)
    if want.unkept:
        failed["unkept"] = np.array([way.offer.keeps for way in ways.rows], bool)
    return failed


def rejections(ways: Ways, want: Want) -> Iterator[Rejection]:
    """Why each row that is not admitted is not."""
    failed = _failed(ways, want)
    for i in (~ways.passes).nonzero()[0].tolist():
        for name, flags in failed.items():
            if flags[i]:
                yield _rejection(name, ways, want, i)


def _rejection(name: str, ways: Ways, want: Want, row: int) -> Rejection:
    way, shortfall, unit = ways.rows[row], 1.0, ""
    match name:
        case "min_fit":
            fit = float(ways.known_fit[row])
            reason, shortfall = f"fit {fit:.3f} of at least {want.min_fit:.3f}", want.min_fit - fit
        case "max_cost_usd":
            cost_usd, most_usd = float(ways.cost_usd[row]), want.max_cost_usd or 0.0
            reason = f"costs {cost_usd:.6f} USD of at most {most_usd}"
            shortfall, unit = cost_usd - most_usd, "USD"
        case "jurisdictions":
            reason = f"{way.offer.jurisdiction or 'nowhere'} is not admitted"
        case "owners":
            reason = f"{way.offer.owner or 'nobody'} is not admitted"
        case _:
            reason = "what is asked there is kept"
    return Rejection(
        candidate=way.id, filter=name, reason=reason, field=name, shortfall=shortfall, unit=unit
    )
