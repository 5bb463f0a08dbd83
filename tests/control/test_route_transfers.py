"""Transfers between many sites at once take what each takes by itself."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from immutables import Map

from daitn.control.route.transfers import between_s, transfer_s
from daitn.objects.identifiers import SiteId
from daitn.objects.readings import LinkReading, Reading
from daitn.topology.snapshot import Drrt

NOW_S = 10_000.0
SITES = [SiteId(name) for name in "abcdef"]


@st.composite
def links(draw: st.DrawFn) -> Map[SiteId, Map[SiteId, LinkReading]]:
    found: Map[SiteId, Map[SiteId, LinkReading]] = Map()
    pairs = st.tuples(st.sampled_from(SITES), st.sampled_from(SITES))
    for source, target in draw(st.lists(pairs, max_size=25)):
        values = {
            name: Reading(draw(value), draw(st.sampled_from([0.0, 9_000.0, NOW_S])), source)
            for name, value in (
                ("rtt_s", st.sampled_from([0.001, 0.2])),
                ("throughput_bps", st.sampled_from([0.5, 1e4, 1e8])),
            )
            if draw(st.booleans())
        }
        link = LinkReading(source=source, target=target, **values)
        found = found.set(source, found.get(source, Map()).set(target, link))
    return found


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    links(),
    st.lists(st.sampled_from(SITES), min_size=1, unique=True),
    st.lists(st.sampled_from(SITES), min_size=1, unique=True),
    st.sampled_from([0.0, 1.0]),
)
def test_many_at_once_are_each_by_itself(
    known: Map[SiteId, Map[SiteId, LinkReading]],
    holders: list[SiteId],
    targets: list[SiteId],
    hope: float,
) -> None:
    snapshot = Drrt(1, NOW_S, links=known)
    found = between_s(snapshot, holders, targets, 5_000_000, NOW_S, hope)
    each = [
        [transfer_s(snapshot, (one,), to, 5_000_000, NOW_S, hope) for to in targets]
        for one in holders
    ]
    np.testing.assert_allclose(found, each, rtol=1e-12)
