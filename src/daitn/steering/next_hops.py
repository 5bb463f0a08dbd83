"""The next hops that an object can take, in columns: one row per origin and neighbour.

This is a forwarder's view of what matters to one intent, as QS-QRRT is a gateway's.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from daitn.objects.abilities import knows_language, needs_in
from daitn.objects.decisions import Rejection
from daitn.steering.routes.names import site_of
from daitn.steering.routes.table import RouteTable
from daitn.steering.statistics import Statistics
from daitn.steering.wire.intent import Capability, PacketIntent
from daitn.steering.wire.offers import Offer
from daitn.topology.arrays import Flags, Floats
from daitn.topology.qrrt.accuracy import UNMEASURED_ACCURACY

__all__ = [
    "LOCAL",
    "MOST_BY_VIA",
    "MOST_NEXT_HOPS",
    "MOST_REJECTED",
    "NextHop",
    "NextHops",
    "Reach",
    "as_learned",
    "best_next_hops",
    "cost_class",
    "cost_usd",
    "id_of",
    "is_suited",
    "next_hops_for",
    "priced",
    "reach_of",
    "rejections",
    "rows_of",
    "units_of",
    "unpriced",
]  # fmt: skip

LOCAL = ""
"""The next hop of an object that is delivered at this site."""
WAIT_WEIGHT = 3.0
"""A waiting object also delays those behind it, as in QIRCE. It weighs more here, since other
forwarders see the same free slot before they learn of each other's choice; tuned on the first seeds
of `benchmarks/aats_topologies.py`."""
MOST_NEXT_HOPS = 64
"""If there are more, only the best are ranked. No packet is tried at more sites."""
MOST_BY_VIA = 8
"""This many through each neighbour are ranked as well: a packet may have visited the others."""
MOST_REJECTED = 20
"""Rejected rows beyond `MOST_NEXT_HOPS` that are kept for explanations."""


class NextHop(msgspec.Struct, frozen=True, gc=False):
    """One row: an offer, and the neighbour through which its origin is reached."""

    origin: str
    via: str
    """A neighbour, or `LOCAL`."""
    offer: Offer
    distance_s: float
    """From this site."""
    remaining_s: float
    """From the neighbour, as advertised."""
    cordoned: str = ""
    """Why nothing is sent that way, in words."""

    @property
    def id(self) -> str:
        """For explanations."""
        return id_of(self.origin, self.via)


def id_of(origin: str, via: str) -> str:
    """The id of a next hop: `origin via neighbour`, or `origin here`."""
    return f"{origin} via {via}" if via else f"{origin} here"


@dataclass(frozen=True, slots=True)
class Reach:
    """All next hops towards one key as advertised in summaries, for any intent. Rows are sorted by
    id."""

    rows: tuple[NextHop, ...]
    via: NDArray[np.intp]
    """The neighbour's position in the sorted names of neighbours."""
    fit: Floats
    trust: Floats
    remaining_s: Floats
    """As in `NextHops`."""
    price_usd: Floats
    prices_usd: tuple[float, ...]
    """The distinct prices, lowest first."""
    contexts: tuple[int, ...]
    """The distinct lengths of bounded contexts in tokens, shortest first."""
    cordoned: tuple[tuple[str, str], ...] = ()
    """Sites that are out of service, with reasons in words."""

    def too_short(self, intent: PacketIntent) -> int:
        """How many of the distinct contexts are too short for the intent."""
        return bisect_left(self.contexts, intent.context_tokens)

    def affordable(self, intent: PacketIntent) -> int:
        """How many of the distinct prices are within the intent's limit."""
        if intent.max_cost_usd is None:
            return len(self.prices_usd)
        units = units_of(intent)
        return bisect_right(
            self.prices_usd, intent.max_cost_usd, key=lambda price: cost_usd(price, units)
        )

    def cost_class(self, intent: PacketIntent) -> int:
        """The price class of an intent, which decides which next hops are worth ranking. 0 if all
        of them are ranked."""
        few = len(self.rows) <= MOST_NEXT_HOPS
        return 0 if few or not any(self.prices_usd) else cost_class(units_of(intent))


@dataclass(frozen=True, slots=True)
class NextHops:
    """Rows sorted by id, and the columns computed from them."""

    rows: tuple[NextHop, ...]
    passes: Flags
    known_fit: Floats
    """0 if its evidence is weaker than the trust that the intent requires."""
    expected_fit: Floats
    """That of an unmeasured deployment in that case."""
    expected_s: Floats
    """Seconds until the answer is back, as far as this forwarder knows."""
    weighted_s: Floats
    """Likewise, with waits times `WAIT_WEIGHT`, and at least the age of an overdue object."""
    remaining_s: Floats
    """Seconds from the next hop until its answer is back there, as advertised, with weighted
    waits."""
    price_usd: Floats
    cost_usd: Floats


def units_of(intent: PacketIntent) -> int:
    """How many units of an offer's price an intent takes; prices are per 1,000 units."""
    if intent.capability == Capability.DATA:
        return intent.examples
    return intent.tokens_in + intent.tokens_out


def cost_usd(price_usd: float, units: int) -> float:
    """Cost of that many units; no units cost nothing, at any price."""
    return price_usd * units / 1000.0 if units else 0.0


def _costs_usd(prices_usd: Floats, units: int) -> Floats:
    """`cost_usd` of each price."""
    return prices_usd * units / 1000.0 if units else np.zeros(len(prices_usd))


def cost_class(units: int) -> int:
    """`units`, rounded to the nearest of eight steps per doubling: within 6.3 %, which changes the
    cost term by less than 0.016."""
    shift = units.bit_length() - 4
    return units if shift <= 0 else (units + (1 << (shift - 1))) >> shift << shift


def reach_of(key: str, routes: RouteTable) -> Reach:
    """All next hops towards the origins that offer a key."""
    rows: list[NextHop] = []
    for origin, offer in routes.offering(key):
        if origin == routes.site:
            rows.append(NextHop(origin, LOCAL, offer, 0.0, 0.0))
            continue
        rows += [
            NextHop(
                origin,
                via.neighbour,
                offer,
                via.distance_s,
                via.remaining_s,
                _out_of_service(origin, via.neighbour, key, routes.cordoned),
            )
            for via in routes.routes_to(origin)
        ]
    rows.sort(key=lambda hop: (hop.origin, hop.via, hop.offer.key))
    names = {via: place for place, via in enumerate(sorted({hop.via for hop in rows}))}
    offers = [hop.offer for hop in rows]
    remaining_s = np.array([hop.remaining_s for hop in rows], float)
    service_s = WAIT_WEIGHT * np.array([offer.wait_s for offer in offers], float)
    service_s += np.array([offer.serve_s for offer in offers], float)
    return Reach(
        tuple(rows),
        np.array([names[hop.via] for hop in rows], np.intp),
        np.array([offer.fit for offer in offers], float),
        np.array([offer.trust for offer in offers], float),
        2.0 * remaining_s + service_s,
        np.array([offer.price_usd for offer in offers], float),
        tuple(sorted({offer.price_usd for offer in offers})),
        tuple(sorted({offer.context_tokens for offer in offers} - {0})),
        tuple(sorted(routes.cordoned.items())),
    )


def _out_of_service(origin: str, via: str, key: str, cordoned: Mapping[str, str]) -> str:
    """Why nothing is sent towards an origin through a neighbour. A site's own objects find their
    way home, but no other out-of-service site forwards them."""
    if not cordoned:
        return ""
    home = key == f"{Capability.HOME}:{origin}"
    barred = [] if home else [site_of(origin)]
    if not (home and via == origin):
        barred.append(via)
    return next((f"{site} {cordoned[site]}" for site in barred if site in cordoned), "")


def next_hops_for(intent: PacketIntent, reach: Reach) -> NextHops:
    """All next hops for an intent, and which of them it admits, according to summaries."""
    remaining_s = reach.remaining_s
    known = reach.trust >= intent.trust
    known_fit = np.where(known, reach.fit, 0.0)
    expected_fit = known_fit
    if intent.capability in (Capability.ANSWER, Capability.MODEL):
        # Nothing is known about a deployment without even a claimed accuracy.
        measured = known & ((reach.trust > 0) | (reach.fit > 0))
        expected_fit = np.where(measured, reach.fit, UNMEASURED_ACCURACY)
    hops = NextHops(
        reach.rows,
        np.ones(len(reach.rows), bool),
        known_fit,
        expected_fit,
        remaining_s,
        remaining_s,
        remaining_s,
        reach.price_usd,
        _costs_usd(reach.price_usd, reach.cost_class(intent)),
    )
    for failed in _failed(hops, intent).values():
        np.logical_and(hops.passes, ~failed, out=hops.passes)
    return hops


def best_next_hops(hops: NextHops, reach: Reach, advertised: Floats) -> NDArray[np.intp]:
    """The rows worth ranking, given their advertised scores (negative: not admitted): all of them,
    up to `MOST_NEXT_HOPS`."""
    if len(hops.rows) <= MOST_NEXT_HOPS:
        return np.arange(len(hops.rows))
    best_first = np.argsort(-advertised, kind="stable")[: np.count_nonzero(hops.passes)]
    via = reach.via[best_first]
    kept = [best_first[:MOST_NEXT_HOPS], (~hops.passes).nonzero()[0][:MOST_REJECTED]]
    kept += [best_first[via == each][:MOST_BY_VIA] for each in range(reach.via.max() + 1)]
    return np.unique(np.concatenate(kept))


def rows_of(hops: NextHops, kept: NDArray[np.intp]) -> NextHops:
    """A selection of rows."""
    if len(kept) == len(hops.rows):
        return hops
    return NextHops(
        tuple(hops.rows[i] for i in kept.tolist()),
        hops.passes[kept],
        hops.known_fit[kept],
        hops.expected_fit[kept],
        hops.expected_s[kept],
        hops.weighted_s[kept],
        hops.remaining_s[kept],
        hops.price_usd[kept],
        hops.cost_usd[kept],
    )


def priced(hops: NextHops, units: int) -> NextHops:
    """The same rows for an intent that takes this many units."""
    return replace(hops, cost_usd=_costs_usd(hops.price_usd, units))


def unpriced(hops: NextHops) -> NextHops:
    """The same rows with a cost whose term adds nothing to a score."""
    return replace(hops, cost_usd=np.full(len(hops.rows), np.inf))


def as_learned(hops: NextHops, statistics: Statistics, now_s: float) -> NextHops:
    """The same rows with the times that this forwarder has learned to expect."""
    expected_s, weighted_s = [], []
    for hop in hops.rows:
        offer, hop_statistics = hop.offer, statistics.hop_statistics(hop.via, hop.origin)
        wait_s = _wait_s(hop, statistics, now_s)
        likely_s = max(
            0.0, 2.0 * hop.distance_s + wait_s + offer.serve_s + hop_statistics.bias_s(now_s)
        )
        expected_s.append(likely_s)
        extra_s = (WAIT_WEIGHT - 1.0) * wait_s
        weighted_s.append(max(likely_s + extra_s, hop_statistics.overdue_s(likely_s, now_s)))
    return replace(
        hops, expected_s=np.array(expected_s, float), weighted_s=np.array(weighted_s, float)
    )


def _wait_s(hop: NextHop, statistics: Statistics, now_s: float) -> float:
    """The expected wait for a slot at the origin, by its load."""
    offer, load = hop.offer, statistics.load(hop.origin)
    slots = max(1, offer.amount)
    load.advertised(offer.wait_s, _advertised_count(offer, slots), hop.distance_s, now_s)
    return max(0.0, load.ahead() - slots + 1) * offer.serve_s / slots


def _advertised_count(offer: Offer, slots: int) -> float:
    """How many objects are pending if one more would wait as advertised. 0 if it would not wait:
    then a slot is free, and the count is unknown."""
    if offer.wait_s == 0.0 or offer.serve_s == 0.0:
        return 0.0
    return offer.wait_s * slots / offer.serve_s + slots - 1


def _failed(hops: NextHops, intent: PacketIntent) -> dict[str, Flags]:
    """By filter, the rows that it rejects."""
    offers = [hop.offer for hop in hops.rows] if intent.jurisdictions or intent.owners else []
    failed = {"min_fit": hops.known_fit < intent.min_fit}
    if any(hop.cordoned for hop in hops.rows):
        failed["cordoned"] = np.array([bool(hop.cordoned) for hop in hops.rows], bool)
    if intent.max_cost_usd is not None:
        costs_usd = _costs_usd(hops.price_usd, units_of(intent))
        failed["max_cost_usd"] = costs_usd > intent.max_cost_usd
    if intent.jurisdictions:
        places = [offer.jurisdiction not in intent.jurisdictions for offer in offers]
        failed["jurisdictions"] = np.array(places, bool)
    if intent.owners:
        failed["owners"] = np.array([offer.owner not in intent.owners for offer in offers], bool)
    if intent.unkept:
        failed["unkept"] = np.array([hop.offer.keeps for hop in hops.rows], bool)
    if intent.needs:
        failed["needs"] = ~np.array([_is_able(hop.offer, intent) for hop in hops.rows], bool)
    if intent.language:
        failed["language"] = ~np.array([_speaks(hop.offer, intent) for hop in hops.rows], bool)
    if intent.capability in (Capability.ANSWER, Capability.MODEL):
        failed["context"] = ~np.array([_holds(hop.offer, intent) for hop in hops.rows], bool)
    return failed


def is_suited(offer: Offer, intent: PacketIntent) -> bool:
    """Whether an offered model supports the inputs and outputs that the intent needs."""
    return _is_able(offer, intent) and _speaks(offer, intent) and _holds(offer, intent)


def _is_able(offer: Offer, intent: PacketIntent) -> bool:
    needs, masks = intent.needs, offer.abilities
    return not needs or not masks or any(mask & needs == needs for mask in masks)


def _speaks(offer: Offer, intent: PacketIntent) -> bool:
    return knows_language(offer.languages, intent.language)


def _holds(offer: Offer, intent: PacketIntent) -> bool:
    return not 0 < offer.context_tokens < intent.context_tokens


def rejections(
    hops: NextHops, intent: PacketIntent, cordoned: tuple[tuple[str, str], ...] = ()
) -> Iterator[Rejection]:
    """Why each rejected row is rejected. `cordoned`: as in `Reach`; such a site no longer
    advertises its offers."""
    failed = _failed(hops, intent)
    advertised = {site_of(hop.origin) for hop in hops.rows} | {hop.via for hop in hops.rows}
    for site, why in cordoned:
        if site not in advertised:
            yield Rejection(
                candidate=site, filter="cordoned", reason=f"{site} {why}", field="cordoned"
            )
    for i in (~hops.passes).nonzero()[0].tolist():
        for name, flags in failed.items():
            if flags[i]:
                yield _rejection(name, hops, intent, i)


def _rejection(name: str, hops: NextHops, intent: PacketIntent, row: int) -> Rejection:
    hop, shortfall, unit = hops.rows[row], 1.0, ""
    match name:
        case "min_fit":
            fit = float(hops.known_fit[row])
            reason, shortfall = (
                f"fit {fit:.3f} of at least {intent.min_fit:.3f}",
                intent.min_fit - fit,
            )
        case "max_cost_usd":
            price_usd = cost_usd(hop.offer.price_usd, units_of(intent))
            most_usd = intent.max_cost_usd or 0.0
            reason = f"costs {price_usd:.6f} USD of at most {most_usd}"
            shortfall, unit = price_usd - most_usd, "USD"
        case "cordoned":
            reason = hop.cordoned
        case "jurisdictions":
            reason = f"{hop.offer.jurisdiction or 'nowhere'} is not admitted"
        case "owners":
            reason = f"{hop.offer.owner or 'nobody'} is not admitted"
        case "needs":
            lacking = [needs_in(intent.needs & ~mask) for mask in hop.offer.abilities]
            least = min(lacking, key=len, default=needs_in(intent.needs))
            reason = f"does not meet {', '.join(least)}"
        case "language":
            reason = f"knows {', '.join(hop.offer.languages)}"
        case "context":
            wanted = intent.context_tokens
            reason = f"holds {hop.offer.context_tokens} tokens, {wanted} are needed"
            shortfall, unit = float(wanted - hop.offer.context_tokens), "tokens"
        case _:
            reason = "queries are kept there"
    return Rejection(
        candidate=hop.id, filter=name, reason=reason, field=name, shortfall=shortfall, unit=unit
    )
