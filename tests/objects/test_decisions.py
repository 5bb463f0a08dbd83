"""What is kept of very many rejections: of each reason those that miss by the least."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from daitn.objects.decisions import MOST_ALIKE, Rejection, nearest

REJECTIONS = st.lists(
    st.builds(
        Rejection,
        candidate=st.sampled_from("abcdefgh"),
        filter=st.sampled_from(("jurisdiction", "samples")),
        reason=st.just("it is elsewhere"),
        field=st.sampled_from(("requirements[0]", "data.topics")),
        shortfall=st.integers(0, 50).map(float),
    ),
    max_size=200,
)


@given(rejections=REJECTIONS)
def test_the_nearest_of_each_filter_and_field_are_kept_in_their_order(
    rejections: list[Rejection],
) -> None:
    kept = nearest(rejections)
    places = iter(rejections)
    assert all(any(one is place for place in places) for one in kept)
    groups: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for one in rejections:
        groups[one.filter, one.field].append(one.shortfall)
    for group, shortfalls in groups.items():
        told = [one.shortfall for one in kept if (one.filter, one.field) == group]
        assert sorted(told) == sorted(shortfalls)[:MOST_ALIKE]
