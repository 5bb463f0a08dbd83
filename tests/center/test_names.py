"""Bare names are given once; deployments are what their owners signed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from daitn.center import deployments as service
from daitn.center.names import MOST_NAMES, NAME_LASTS_S, PLACE_LASTS_S, BareNames
from daitn.objects.descriptors import Role
from daitn.objects.errors import Corrupt, InvalidInput, Refused
from daitn.objects.grants import NameGrant, PlaceGrant, Signed
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.messages import NameAnswer, NameQuestion
from daitn.objects.placement import DeployIntent, RetireIntent
from daitn.objects.roster import Kind, Member
from daitn.objects.wire import decode, encode
from daitn.tools.fabric.caller import speaking
from daitn.tools.journal.memory import MemoryJournal
from tests.scenes.grants import NETWORK, NOW_S, Members, digest
from tests.scenes.waiting import until

from .mdf import World, trained

EAST = SiteId("east")


@pytest.fixture
def members() -> Members:
    return Members()


@pytest.fixture
def names(members: Members) -> BareNames:
    return BareNames(MemoryJournal(), NETWORK, members.keys["center"], lambda: members.now_s)


def test_who_comes_first_has_a_name_and_keeps_it(members: Members, names: BareNames) -> None:
    first = members.book().read(names.give("acme", "doctor"), NameGrant)
    assert (first.owner, first.name, first.issued_at_s) == ("acme", "doctor", NOW_S)
    members.now_s += 100
    for _ in range(2):
        with pytest.raises(Refused, match="acme's"):
            names.give("rival", "doctor")
        again = members.book().read(names.give("acme", "doctor"), NameGrant)
        assert (again.owner, again.issued_at_s) == ("acme", NOW_S)
    # What is in the journal outlives the process.
    with pytest.raises(Refused):
        replace(names).give("rival", "doctor")


def test_a_name_that_nobody_renews_is_free_again(members: Members, names: BareNames) -> None:
    names.give("acme", "doctor")
    names.give("acme", "model", NOW_S + 2 * NAME_LASTS_S)
    members.now_s += NAME_LASTS_S
    assert members.book().read(names.give("rival", "doctor"), NameGrant).owner == "rival"
    with pytest.raises(Refused):
        names.give("rival", "model")


def test_nobody_takes_all_names(names: BareNames) -> None:
    for number in range(MOST_NAMES):
        names.give("rival", f"model-{number}")
    with pytest.raises(Refused):
        names.give("rival", "one-more")
    names.give("rival", "model-0")
    names.give("acme", "one-more")
    for name in ("acme/doctor", "doctor@north", "", "auto:x", "x" * 64):
        with pytest.raises(InvalidInput):
            names.give("acme", name)


@pytest.fixture
async def world(members: Members, names: BareNames) -> AsyncIterator[World]:
    world = World()
    for name, owner, letter in (("doctor-1", "acme", "a"), ("quack-1", "rival", "b")):
        model = msgspec.structs.replace(trained(name, letter), owner=OwnerId(owner))
        world.journal.put("model", name, encode(model))
    await world.add("east")
    await world.start(members.book(), names)
    await world.known("east")
    yield world
    await world.stop()


def granted(members: Members, by: str = "acme", **said: Any) -> Signed:
    """What the owner signs of `wish`."""
    terms = wish(None).terms(trained("doctor-1", "a")).digest
    return members.grant(by, **{"terms": terms, "sites": (EAST,), **said})


def wish(grant: Signed | None, model: str = "doctor-1", name: str = "doctor") -> DeployIntent:
    return DeployIntent(model=model, name=name, to=(EAST,), grant=grant)


async def test_only_what_its_owner_signed_is_deployed(world: World, members: Members) -> None:
    refused: list[Any] = [
        None,
        *(granted(members, by) for by in ("rival", "operator", "center", "stranger", "north")),
        granted(members, name="another"),
        granted(members, manifest=digest("b")),
        granted(members, "rival", owner=OwnerId("rival")),
        granted(members, until_s=NOW_S),
        granted(members, network="another"),
        granted(members, sites=()),
        granted(members, sites=(EAST, SiteId("west"))),
        granted(members, sites=(SiteId("west"),)),
        granted(members, terms=digest("c")),
    ]
    for grant in refused:
        with pytest.raises((Refused, Corrupt)):
            world.service.deploy(wish(grant))
    for changed in ({"askers": ("rival",)}, {"price_usd_per_1k_in": 1.0}, {"to": ()}):
        with pytest.raises(Refused):
            world.service.deploy(msgspec.structs.replace(wish(granted(members)), **changed))
    assert world.service.all().deployments == ()
    world.service.deploy(wish(granted(members)))
    rivals = granted(members, "rival", owner=OwnerId("rival"), manifest=digest("b"))
    with pytest.raises(Refused, match="acme has deployed"):
        world.service.deploy(wish(rivals, "quack-1"))


async def test_facilities_ask_names_for_their_owner(world: World, members: Members) -> None:
    def site(owner: str, *roles: Role) -> Member:
        return Member(
            name=f"of-{owner}", kind=Kind.SITE, public_key="", until_s=1, roles=roles, owner=owner
        )

    async def asked(member: Member, name: str) -> str:
        with speaking(member):
            answer = await world.service.on_name("", encode(NameQuestion(name=name)))
        signed = decode(answer, NameAnswer).grant
        assert signed is not None
        return members.book().read(signed, NameGrant).owner

    world.service.deploy(wish(granted(members)))
    assert await asked(site("rival", Role.FACILITY), "nurse") == "rival"
    assert await asked(site("acme", Role.FACILITY), "doctor") == "acme"
    for member, name in (
        (site("rival", Role.FACILITY), "doctor"),
        (site("acme", Role.FACILITY), "nurse"),
        (site("acme", Role.GATEWAY, Role.DATA), "free"),
    ):
        with pytest.raises(Refused):
            await asked(member, name)


async def test_a_place_is_signed_where_the_owner_leaves_it_to_the_control_centre(
    world: World, members: Members
) -> None:
    world.service.deploy(msgspec.structs.replace(wish(granted(members, sites=())), to=()))
    await until(lambda: world.mdfs["east"].deployed)
    signed = world.mdfs["east"].deployed[-1].place_grant
    assert signed is not None
    place = members.book().read(signed, PlaceGrant)
    assert (place.owner, place.name, place.site) == ("acme", "doctor", EAST)
    assert place.until_s == members.now_s + PLACE_LASTS_S
    members.now_s = place.until_s
    with pytest.raises(Refused, match="expired"):
        members.book().read(signed, PlaceGrant)


async def test_a_place_is_renewed_while_it_holds(
    world: World, members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "ASK_AGAIN_S", 0.0)
    east = world.mdfs["east"]
    world.service.deploy(msgspec.structs.replace(wish(granted(members, sites=())), to=()))
    await until(lambda: world.mdfs["east"].ready("doctor"))
    first = len(east.deployed)
    monkeypatch.setattr(service, "PLACE_LASTS_S", 0.0)
    members.now_s += 10
    await until(lambda: len(east.deployed) > first)
    assert east.deployed[-1].place_grant != east.deployed[0].place_grant
    world.service.retire(RetireIntent(name="doctor"))
    await until(lambda: "doctor" not in east.hosted)
    last = len(east.deployed)
    await world.service._reconcile()
    assert len(east.deployed) == last


async def test_a_named_facility_needs_no_control_centre(world: World, members: Members) -> None:
    world.service.deploy(wish(granted(members)))
    await until(lambda: world.mdfs["east"].deployed)
    assert world.mdfs["east"].deployed[-1].place_grant is None


async def test_another_control_centre_gives_no_bare_names(members: Members) -> None:
    world = World()
    world.journal.put(
        "model",
        "doctor-1",
        encode(msgspec.structs.replace(trained("doctor-1", "a"), owner=OwnerId("acme"))),
    )
    await world.add("east")
    second = BareNames(world.journal, NETWORK, members.keys["center2"], lambda: members.now_s)
    await world.start(members.book(), second)
    await world.known("east")
    world.service.deploy(wish(granted(members)))
    await until(lambda: world.mdfs["east"].deployed)
    assert world.mdfs["east"].deployed[-1].name_grant is None
    asker = Member(
        name="east", kind=Kind.SITE, public_key="", until_s=1, roles=(Role.FACILITY,), owner="acme"
    )
    with speaking(asker), pytest.raises(Refused, match="center assigns"):
        await world.service.on_name("", encode(NameQuestion(name="nurse")))
    await world.stop()


async def test_nobody_brings_back_what_its_owner_replaced_or_retired(
    world: World, members: Members
) -> None:
    """Adverts show grants, so an operator had those of the year before."""
    first, second = (granted(members, issued_at_s=NOW_S + n) for n in (1, 2))
    world.service.deploy(wish(first))
    world.service.deploy(wish(first))
    world.service.deploy(wish(second))
    with pytest.raises(Refused, match="later"):
        world.service.deploy(wish(first))
    world.service.deploy(wish(second))
    world.service.retire(RetireIntent(name="doctor"))
    for old in (first, second):
        with pytest.raises(Refused, match="retired"):
            world.service.deploy(wish(old))
    world.service.deploy(wish(granted(members, issued_at_s=NOW_S + 3)))


def test_no_name_is_taken_for_ever(names: BareNames, members: Members) -> None:
    for until_s in (1e13, NOW_S + 1e9):
        given = members.book().read(names.give("acme", "doctor", until_s), NameGrant)
        assert given.until_s == NOW_S + 366 * 86_400
