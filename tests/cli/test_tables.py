"""Cells of tables stay narrow, however long a job runs."""

from __future__ import annotations

import msgspec
import pytest

from daitn.cli.tables import route_words
from daitn.objects.identifiers import SiteId
from tests.cli.test_picture import SHORT, job_of, made_visits


@pytest.mark.parametrize(
    ("sites", "shown"),
    [
        ("", ""),
        ("abc", "a > b > c"),
        ("w" * 46, "w x46"),
        ("aabaaa", "a x2 > b > a x3"),
        ("abcdef", "a > b > c > d > e > f"),
        ("abcddefgh", "a > b > c > 3 more > f > g > h"),
        ("ab" * 500, "a > b > a > 994 more > b > a > b"),
    ],
)
def test_a_route_is_shown_in_bounded_width(sites: str, shown: str) -> None:
    (visit,) = made_visits(SHORT[:1])
    route = tuple(msgspec.structs.replace(visit, site=SiteId(site)) for site in sites)
    assert route_words(msgspec.structs.replace(job_of(()), route=route)) == shown
