"""How long a model takes from one site to another, by either end's measurements of the link.

Between many sites at once, or between two; both say the same. Few of the pairs of a large network
were measured lately, so that arrays start from what is assumed of a link without measurements: what
the slower of the two sites' lines carries, as far as these are known (`benchmarks/lines.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from immutables import Map

from daitn.objects.identifiers import SiteId
from daitn.objects.readings import LinkReading
from daitn.topology.arrays import Floats
from daitn.topology.snapshot import Drrt

__all__ = ["DEFAULT_SD", "between_s", "transfer_s"]

_DEFAULT_THROUGHPUT_BPS = 5e6
"""Assumed for a line without measurements: 40 Mbit/s, a modest office uplink."""
DEFAULT_SD = 1.5
"""Standard deviation of the logarithm of such a link's speed, or of a queued visit's duration: two
of these span from a slow line to a gigabit network."""
_DEFAULT_RTT_S = 0.05
"""Across a country; small compared with the transfer."""
_STALE_AFTER_S = 600.0
"""A transfer is assumed to take half as long again with a reading of this age, and twice as long
from twice the age on, as over a link without measurements: an old link may have got worse."""
_STALE_MOST = 2.0
_NONE: Mapping[SiteId, LinkReading] = Map()


def transfer_s(
    snapshot: Drrt,
    holders: Sequence[SiteId],
    target: SiteId,
    size_bytes: int,
    now_s: float,
    hope: float = 0.0,
) -> float:
    """Seconds until `target` has the model, from the best of `holders`; 0 if it already has it."""
    if not holders or target in holders:
        return 0.0
    return min(_link_s(snapshot, holder, target, size_bytes, now_s, hope) for holder in holders)


def between_s(
    snapshot: Drrt,
    holders: Sequence[SiteId],
    targets: Sequence[SiteId],
    size_bytes: int,
    now_s: float,
    hope: float = 0.0,
) -> Floats:
    """(H, T): seconds until each of `targets` has the model from each of `holders`, which are
    distinct; 0 at the holder itself."""
    shape = (len(holders), len(targets))
    lines_bps = [[_line_bps(snapshot, site) for site in sites] for sites in (holders, targets)]
    throughput_bps = np.minimum.outer(*map(np.array, lines_bps)) * math.exp(hope * DEFAULT_SD)
    rtt_s = np.full(shape, _DEFAULT_RTT_S)
    age_s = np.full(shape, _STALE_AFTER_S * _STALE_MOST)

    def take(row: int, column: int, link: LinkReading) -> None:
        if link.rtt_s is not None:
            rtt_s[row, column] = link.rtt_s.value
        if link.throughput_bps is not None:
            throughput_bps[row, column] = link.throughput_bps.value
            age_s[row, column] = link.throughput_bps.age_s(now_s)

    row_of = {site: row for row, site in enumerate(holders)}
    column_of = {site: column for column, site in enumerate(targets)}
    links = snapshot.links
    for row, holder in enumerate(holders):
        for column, link in _among(links.get(holder, _NONE), column_of):
            take(row, column, link)
    # The target fetches, so its own measurement comes last and wins.
    for column, target in enumerate(targets):
        for row, link in _among(links.get(target, _NONE), row_of):
            take(row, column, link)
    seconds: Floats = rtt_s + size_bytes / np.maximum(throughput_bps, 1.0)
    if not hope:
        seconds *= np.minimum(_STALE_MOST, 1.0 + 0.5 * age_s / _STALE_AFTER_S)
    for site, row in row_of.items():
        if site in column_of:
            seconds[row, column_of[site]] = 0.0
    return seconds


def _among(
    links: Mapping[SiteId, LinkReading], positions: Mapping[SiteId, int]
) -> Iterator[tuple[int, LinkReading]]:
    """The links to sites that have a position; iterates over the shorter of both."""
    if len(links) < len(positions):
        for site, link in links.items():
            if site in positions:
                yield positions[site], link
        return
    for site, position in positions.items():
        if (known := links.get(site)) is not None:
            yield position, known


def _line_bps(snapshot: Drrt, site: SiteId) -> float:
    return snapshot.lines_bps.get(site, _DEFAULT_THROUGHPUT_BPS)


def _link_s(
    snapshot: Drrt, holder: SiteId, target: SiteId, size_bytes: int, now_s: float, hope: float
) -> float:
    slower_bps = min(_line_bps(snapshot, holder), _line_bps(snapshot, target))
    rtt_s, throughput_bps = _DEFAULT_RTT_S, slower_bps * math.exp(hope * DEFAULT_SD)
    age_s = _STALE_AFTER_S * _STALE_MOST
    for link in (snapshot.link(holder, target), snapshot.link(target, holder)):
        # The target fetches, so its own measurement comes last and wins.
        if link is not None and link.rtt_s is not None:
            rtt_s = link.rtt_s.value
        if link is not None and link.throughput_bps is not None:
            throughput_bps = link.throughput_bps.value
            age_s = link.throughput_bps.age_s(now_s)
    stale = 1.0 if hope else min(_STALE_MOST, 1.0 + 0.5 * age_s / _STALE_AFTER_S)
    return (rtt_s + size_bytes / max(throughput_bps, 1.0)) * stale
