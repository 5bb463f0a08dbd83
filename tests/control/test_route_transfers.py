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


lines = st.dictionaries(st.sampled_from(SITES), st.sampled_from([1e3, 1e6, 1e9]))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    links(),
    lines,
    st.lists(st.sampled_from(SITES), min_size=1, unique=True),
    st.lists(st.sampled_from(SITES), min_size=1, unique=True),
    st.sampled_from([0.0, 1.0]),
)
def test_many_at_once_are_each_by_itself(
    known: Map[SiteId, Map[SiteId, LinkReading]],
    lines_bps: dict[SiteId, float],
    holders: list[SiteId],
    targets: list[SiteId],
    hope: float,
) -> None:
    snapshot = Drrt(1, NOW_S, links=known, lines_bps=Map(lines_bps))
    found = between_s(snapshot, holders, targets, 5_000_000, NOW_S, hope)
    each = [
        [transfer_s(snapshot, (one,), to, 5_000_000, NOW_S, hope) for to in targets]
        for one in holders
    ]
    np.testing.assert_allclose(found, each, rtol=1e-12)


def test_a_pair_that_nobody_measured_has_the_slower_of_its_lines() -> None:
    a, b, c, unknown = SITES[:4]
    snapshot = Drrt(1, NOW_S, lines_bps=Map({a: 1e8, b: 1e4, c: 1e7}))
    to_b, to_c, to_unknown = between_s(snapshot, [a], [b, c, unknown], 10**7, NOW_S)[0]
    assert to_c < to_unknown < to_b, "an unknown line is a modest one"
    measured = LinkReading(source=b, target=a, throughput_bps=Reading(1e8, NOW_S, b))
    known = Drrt(1, NOW_S, links=Map({b: Map({a: measured})}), lines_bps=snapshot.lines_bps)
    assert between_s(known, [a], [b], 10**7, NOW_S)[0, 0] < to_c, "what was measured counts"
