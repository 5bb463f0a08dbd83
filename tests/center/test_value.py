"""Who sees what data was worth."""

from __future__ import annotations

import pytest

from daitn.center.job_views import _own_part
from daitn.objects.errors import NotFound
from daitn.objects.identifiers import JobId, OwnerId, SiteId
from daitn.objects.roster import Kind, Member
from daitn.objects.value import Contributions, Credit, ValueOfData
from daitn.tools.fabric.caller import speaking


def credit(site: str, owner: str) -> Credit:
    return Credit(
        site=SiteId(site),
        dataset="qa",
        owner=OwnerId(owner),
        visits=1,
        examples=10,
        value={"broad": 0.1},
        standard_error={"broad": 0.01},
    )


VALUE = ValueOfData(
    job=JobId("qa-1"),
    method=Contributions.VISITS,
    gain={"broad": 0.3},
    credits=(credit("east", "clinics"), credit("west", "clinics"), credit("north", "other")),
    why="north left",
)


def seen(name: str, kind: Kind) -> ValueOfData:
    with speaking(Member(name=name, kind=kind, public_key="", until_s=1.0)):
        return _own_part(VALUE)


@pytest.mark.parametrize(
    ("name", "kind", "sites"),
    [
        ("clinics", Kind.OWNER, ["east", "west"]),
        ("other", Kind.OWNER, ["north"]),
        ("east", Kind.SITE, ["east"]),
    ],
)
def test_a_data_owner_sees_its_own_part_and_nothing_else(
    name: str, kind: Kind, sites: list[str]
) -> None:
    found = seen(name, kind)
    assert [one.site for one in found.credits] == sites
    assert (found.gain, found.why) == ({}, "")


@pytest.mark.parametrize(
    ("name", "kind"), [("clinics", Kind.SITE), ("east", Kind.OWNER), ("stranger", Kind.OWNER)]
)
def test_nobody_else_sees_anything(name: str, kind: Kind) -> None:
    with pytest.raises(NotFound, match="there is no job qa-1 of"):
        seen(name, kind)
