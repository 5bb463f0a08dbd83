"""Who answers under which name: an owner's own, the latest of its models, and no rival."""

from __future__ import annotations

import itertools
import math
from typing import Any

import msgspec
import pytest

from daitn.objects.deployments import (
    Api,
    DeploymentDescriptor,
    DeploymentState,
    FacilityDescriptor,
    ModelPolicy,
    Runtime,
)
from daitn.objects.descriptors import NodeDescriptor, Role
from daitn.objects.grants import Signed
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.tools.entitled import EntitledNodes
from daitn.topology.qrrt.state import QrrtState
from tests.scenes.grants import NOW_S, Members, digest


def deployment(name: str = "doctor", owner: str = "acme", **said: Any) -> DeploymentDescriptor:
    plain = DeploymentDescriptor(
        name=name,
        owner=OwnerId(owner),
        runtime=Runtime.EMBEDDED,
        apis=(Api.CHAT,),
        state=DeploymentState.READY,
    )
    return msgspec.structs.replace(plain, **said)


class World:
    """What a gateway makes of descriptors, in one order of arrival."""

    def __init__(self, members: Members) -> None:
        self.members = members
        self.entitled = EntitledNodes(members.book())
        self.state = QrrtState(scoped=True)
        self.version = 0

    def says(self, site: str, owner: str, *deployments: DeploymentDescriptor) -> None:
        self.version += 1
        facility = FacilityDescriptor(
            endpoint="http://127.0.0.1:1", hosts=True, memory_bytes=1, deployments=deployments
        )
        node = NodeDescriptor(
            site=SiteId(site),
            owner=OwnerId(owner),
            roles=(Role.FACILITY,),
            jurisdiction="US",
            public_key="",
            started_at_s=1.0,
            version=self.version,
            software="daitn",
            facility=facility,
        )
        own, *others = self.entitled.described(node)
        self.state.described(own, NOW_S)
        self.state.came(node.site, NOW_S)
        for one in (own, *others):
            self.state.entitled(one, NOW_S)

    def again(self) -> None:
        for node in self.entitled.checked_again():
            self.state.entitled(node, NOW_S)

    def removed(self, site: str) -> None:
        for node in self.entitled.removed(SiteId(site)):
            self.state.entitled(node, NOW_S)
        self.state.removed(SiteId(site), NOW_S)

    def named(self, name: str) -> set[str]:
        """The sites that answer under a name."""
        snapshot = self.state.snapshot()
        return {snapshot.rows[row].site for row in snapshot.rows_of.get(name, ())}


@pytest.fixture
def members() -> Members:
    return Members()


def granted(members: Members, letter: str = "a", at_s: float = NOW_S, **said: Any) -> Any:
    grant = members.grant(manifest=digest(letter), issued_at_s=at_s)
    return deployment(manifest=digest(letter), grant=grant, name_grant=members.name(), **said)


def test_a_rival_does_not_answer_under_an_owners_name(members: Members) -> None:
    true = granted(members)
    forged = [
        deployment(),
        deployment(manifest=digest("a")),
        deployment(manifest=digest("b"), grant=true.grant, name_grant=true.name_grant),
        deployment(manifest=digest("a"), grant=members.grant("rival")),
        deployment(manifest=digest("a"), grant=members.grant("stranger")),
        deployment(manifest=digest("a"), grant=members.grant("center")),
        deployment("other", manifest=digest("a"), grant=true.grant),
        deployment("acme/doctor", "rival"),
        deployment("doctor@north", "rival"),
    ]
    for lies in itertools.permutations(forged, 2):
        world = World(members)
        world.says("evil", "rival", lies[0])
        world.says("north", "north", true)
        world.says("evil2", "rival", lies[1])
        assert world.named("doctor") == world.named("acme/doctor") == {"north"}


def test_a_rivals_own_name_takes_nothing_from_others(members: Members) -> None:
    """Not even where the rival comes first, or shows the name that somebody else was given."""
    own = deployment(owner="rival", name_grant=members.name())
    for order in itertools.permutations(("evil", "north")):
        world = World(members)
        for site in order:
            if site == "evil":
                world.says("evil", "rival", own)
            else:
                world.says("north", "north", granted(members))
        assert world.named("doctor") == world.named("acme/doctor") == {"north"}
        assert world.named("rival/doctor") == {"evil"}


@pytest.mark.parametrize("at_s", [NOW_S - 1, 0.0, -1e9, -math.inf, math.nan])
def test_no_other_control_centre_moves_a_bare_name(members: Members, at_s: float) -> None:
    """However early it says that it gave it."""
    for by in ("center2", "center"):
        if by == "center" and at_s >= 0:
            continue
        given = members.name(by, owner="rival", issued_at_s=at_s)
        for order in itertools.permutations(("evil", "north")):
            world = World(members)
            for site in order:
                if site == "evil":
                    world.says("evil", "rival", deployment(owner="rival", name_grant=given))
                else:
                    world.says("north", "north", granted(members))
            assert world.named("doctor") == {"north"}
            world.removed("north")
            assert world.named("doctor") == set()
            assert world.named("rival/doctor") == {"evil"}


def test_where_a_control_centre_gave_a_name_twice_the_first_owner_keeps_it(
    members: Members,
) -> None:
    late = members.name(owner="rival", issued_at_s=NOW_S + 1)
    for order in itertools.permutations(("evil", "north")):
        world = World(members)
        for site in order:
            if site == "evil":
                world.says("evil", "rival", deployment(owner="rival", name_grant=late))
            else:
                world.says("north", "north", granted(members))
        assert world.named("doctor") == {"north"}
        world.removed("north")
        assert world.named("doctor") == {"evil"}


def test_a_copied_grant_answers_nowhere_else(members: Members) -> None:
    """A facility that repeated another's advert got 29 of 60 queries, and all after it was
    retired."""
    new = granted(members, "b", NOW_S + 1)
    world = World(members)
    world.says("north", "north", granted(members))
    world.says("evil", "rival", granted(members), new)
    world.says(
        "north",
        "north",
        granted(members),
        msgspec.structs.replace(new, state=DeploymentState.LOADING),
    )
    assert world.named("doctor") == world.named("acme/doctor") == {"north"}
    world.says("north", "north")
    assert world.named("doctor") == world.named("acme/doctor") == set()


def test_a_control_centre_places_what_its_owner_leaves_to_it(members: Members) -> None:
    left = msgspec.structs.replace(granted(members), grant=members.grant(sites=()))
    wrong: list[Signed | None] = [
        None,
        members.grant(),
        *(members.place(by) for by in ("acme", "rival", "operator", "stranger", "north")),
        members.place(site=SiteId("evil")),
        members.place(manifest=digest("b")),
        members.place(name="nurse"),
        members.place(owner=OwnerId("rival")),
        members.place(until_s=NOW_S),
        members.place(until_s=math.nan),
        members.place(network="other"),
    ]
    world = World(members)
    for place in wrong:
        world.says("north", "north", msgspec.structs.replace(left, place_grant=place))
        assert world.named("acme/doctor") == set()
    placed = msgspec.structs.replace(left, place_grant=members.place("center2"))
    world.says("evil", "rival", placed)
    world.says("north", "north", placed)
    assert world.named("doctor") == {"north"}
    # It is not renewed where the model was retired.
    assert world.entitled.lapsed(members.until(50))
    world.again()
    assert world.named("acme/doctor") == set()


@pytest.mark.parametrize(
    "changed",
    [
        {"recipe": "other"},
        {"config": digest("c")},
        {"policy": ModelPolicy(askers=("rival",))},
        {"policy": ModelPolicy(release_to=("FR",))},
        {"price_usd_per_1k_in": 1.0},
        {"price_usd_per_1k_out": 1.0},
    ],
)
def test_a_deployment_answers_on_the_terms_that_its_owner_signed(
    members: Members, changed: dict[str, Any]
) -> None:
    world = World(members)
    world.says("north", "north", granted(members, **changed))
    assert world.named("acme/doctor") == set()


def test_a_model_is_not_found_where_it_may_not_be_hosted(members: Members) -> None:
    abroad = deployment(manifest=digest("a"), policy=ModelPolicy(release_to=("FR",)))
    grant = members.grant(terms=abroad.terms.digest)
    world = World(members)
    world.says("north", "north", msgspec.structs.replace(abroad, grant=grant))
    assert world.named("acme/doctor") == set()


def test_an_upstream_server_is_its_facilitys_owners(members: Members) -> None:
    world = World(members)
    world.says("north", "north", deployment(owner="north"), deployment("nurse", "acme"))
    assert world.named("north/doctor") == {"north"}
    assert world.named("doctor") == world.named("nurse") == world.named("acme/nurse") == set()


def test_what_an_owner_signed_stands_before_its_own_servers(members: Members) -> None:
    for order in itertools.permutations(("own", "north")):
        world = World(members)
        for site in order:
            world.says(site, "acme", deployment() if site == "own" else granted(members))
        assert world.named("acme/doctor") == {"north"}


def test_replicas_have_the_same_weights_and_the_latest_grant_wins(members: Members) -> None:
    old, new = granted(members), granted(members, "b", NOW_S + 1)
    for order in itertools.permutations(("north", "south", "east")):
        world = World(members)
        for site in order:
            world.says(site, site, new if site == "east" else old)
        assert world.named("doctor") == {"east"}
        world.says("south", "south", new)
        assert world.named("doctor") == {"east", "south"}


def test_a_model_answers_until_its_successor_is_ready(members: Members) -> None:
    new = granted(members, "b", NOW_S + 1, state=DeploymentState.LOADING)
    world = World(members)
    world.says("north", "north", granted(members))
    world.says("south", "south", new)
    assert "north" in world.named("doctor")
    world.says("south", "south", msgspec.structs.replace(new, state=DeploymentState.READY))
    assert world.named("doctor") == {"south"}


def test_time_and_the_roster_take_a_signature_its_force(members: Members) -> None:
    world = World(members)
    world.says("north", "north", granted(members))
    assert not world.entitled.lapsed(NOW_S + 99)
    assert world.entitled.lapsed(NOW_S + 100)
    members.now_s = NOW_S + 100
    world.again()
    assert world.named("acme/doctor") == set()
    members.now_s = NOW_S
    world.again()
    assert world.named("doctor") == {"north"}
    members.revoke("center")
    world.again()
    assert world.named("doctor") == set()
    assert world.named("acme/doctor") == {"north"}
    members.revoke("acme")
    world.again()
    assert world.named("acme/doctor") == set()
    assert world.state.snapshot().rows == ()


def test_rows_keep_their_figures_when_they_gain_a_name(members: Members) -> None:
    world = World(members)
    bare = granted(members)
    for name_grant in (None, bare.name_grant, None):
        assert isinstance(name_grant, Signed | None)
        world.says("north", "north", msgspec.structs.replace(bare, name_grant=name_grant))
        assert world.named("acme/doctor") == {"north"}
        assert world.named("doctor") == ({"north"} if name_grant else set())
