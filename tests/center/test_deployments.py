"""What is wished is kept and made so, whatever facilities and the control centre go through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from daitn.center import backoff, deployments
from daitn.objects.cordons import Cordon
from daitn.objects.deployments import DeploymentState
from daitn.objects.errors import InvalidInput, NotFound, Refused, StorageFull
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.placement import AUTO_REPLICAS, DeployIntent, RetireIntent
from daitn.objects.roster import Kind, Member
from daitn.objects.wire import encode
from daitn.tools import membership as membership
from daitn.tools.fabric.caller import speaking
from tests.scenes.waiting import PATIENCE_S, until

from .mdf import World, trained

NEVER_S = 1e9


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(deployments, "RECONCILE_EVERY_S", 0.01)
    monkeypatch.setattr(deployments, "ASK_AGAIN_S", 0.05)
    monkeypatch.setattr(membership, "LOST_AFTER_S", 0.02)
    monkeypatch.setattr(backoff, "GONE_AFTER_S", NEVER_S)
    world = World()
    await world.add("east", "west", "north")
    await world.start()
    await world.known("east", "west", "north")
    yield world
    await world.stop()


def wish(model: str = "doctor-1", *to: str, **more: object) -> DeployIntent:
    sites = tuple(SiteId(site) for site in to)
    return DeployIntent(model=model, to=sites, **more)  # type: ignore[arg-type]


async def test_a_model_is_deployed_where_its_operator_says_and_retired(world: World) -> None:
    view = world.service.deploy(wish("doctor-1", "east", "west"))
    assert world.kept("doctor-1") == {"east", "west"}
    assert not view.ready
    await until(lambda: world.view().ready)
    assert world.hosts() == {"east", "west"}
    world.service.retire(RetireIntent(name="doctor-1", site=SiteId("west")))
    await until(lambda: world.hosts() == {"east"})
    world.service.retire(RetireIntent(name="doctor-1"))
    await until(lambda: not world.hosts())
    assert world.service.all().deployments == ()


async def test_whoever_listens_is_told_of_each_change_however_short(world: World) -> None:
    told: list[tuple[str, bool]] = []
    service = world.service
    service.deploy(wish("doctor-1", "east"))
    service.listen(lambda name: told.append((name, service.current(name) is not None)))
    assert told == [("doctor-1", True)], "what is there already"
    service.deploy(wish("doctor-2", "west"))
    assert service.at(SiteId("west")) == ("doctor-2",)
    service.retire(RetireIntent(name="doctor-2"))
    service.deploy(wish("doctor-2", "west"))
    service.retire(RetireIntent(name="doctor-2"))
    assert told[1:] == 2 * [("doctor-2", True), ("doctor-2", False)]
    told.clear()
    world.mdfs["north"].fails = StorageFull("it has no room")
    service.deploy(wish("doctor-1", "north"))
    await until(lambda: len(told) == 2)
    details = {place.site: place.detail for place in service.view("doctor-1").places}
    assert details[SiteId("north")] == "it has no room"


async def test_only_the_owner_of_a_model_deploys_replaces_and_retires_it(world: World) -> None:
    """A clinic's deployed model was replaced under its name, and retired, by anybody."""

    def member(name: str, kind: Kind) -> Member:
        return Member(name=name, kind=kind, public_key="", until_s=1.0)

    with speaking(member("me", Kind.OWNER)):
        world.service.deploy(wish("doctor-1", "east", name="doctor"))
    with speaking(member("curious", Kind.OWNER)):
        for name in ("doctor", "other"):
            with pytest.raises(NotFound, match="there is no trained model doctor-1 of curious"):
                world.service.deploy(wish("doctor-1", "west", name=name))
        own = msgspec.structs.replace(trained("own-1", "9"), owner=OwnerId("curious"))
        world.journal.put("model", own.name, encode(own))
        with pytest.raises(Refused, match="the deployment doctor is not yours"):
            world.service.deploy(wish("own-1", "west", name="doctor"))
        with pytest.raises(Refused, match="not yours"):
            world.service.retire(RetireIntent(name="doctor"))
        world.service.deploy(wish("own-1", "west"))
    assert world.kept("doctor") == {"east"}
    with speaking(member("ops", Kind.OPERATOR)):
        world.service.retire(RetireIntent(name="doctor"))
    assert [view.name for view in world.service.all().deployments] == ["own-1"]


async def test_what_is_wished_is_known_again_after_a_crash(world: World) -> None:
    world.service.deploy(wish("doctor-1", replicas=2))
    before = world.kept("doctor-1")
    assert len(before) == 2
    await world.restart()
    await until(lambda: world.view().ready)
    assert set(world.places()) == before
    assert world.service.models() == {"a" * 64}


async def test_nothing_moves_because_the_control_centre_starts_anew(world: World) -> None:
    world.service.deploy(wish("doctor-1"))
    await until(lambda: world.view().ready)
    (home,) = world.hosts()
    # It comes back before the facility is to be seen, but after others are.
    world.network.cut("center", home)
    await world.restart()
    await world.known(*(site for site in world.mdfs if site != home))
    world.service.deploy(wish("doctor-2"))
    await until(lambda: world.view("doctor-2").ready)
    assert world.kept("doctor-1") == {home}
    world.network.mend("center", home)
    await until(lambda: world.view().ready)
    assert world.hosts() == {home}


async def test_a_moved_model_answers_until_the_next_one_does(world: World) -> None:
    world.service.deploy(wish("doctor-1", "east"))
    await until(lambda: world.view().ready)
    world.sacred.add("doctor-1")
    world.mdfs["west"].loads = False
    world.service.deploy(wish("doctor-1", "west"))
    await until(lambda: world.hosts() == {"east", "west"})
    await world.restart()
    await world.known("east", "west")
    assert world.places() == {"west": "loading"}
    assert world.mdfs["east"].ready("doctor-1")
    await world.mdfs["west"].load("doctor-1")
    await until(lambda: world.hosts() == {"west"})
    assert not world.broken


async def test_a_lost_facility_is_replaced_and_its_copy_goes_when_it_is_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.service.deploy(wish("doctor-1"))
    await until(lambda: world.view().ready)
    (home,) = world.hosts()
    monkeypatch.setattr(backoff, "GONE_AFTER_S", 0.4)
    await world.mdfs[home].die()
    await until(lambda: world.view().ready and set(world.places()) != {home})
    assert len(world.hosts()) == 2
    world.sacred.add("doctor-1")
    await world.mdfs[home].start()
    await until(lambda: world.hosts() == set(world.places()))
    assert home not in world.hosts()
    assert not world.broken


async def test_a_place_that_gets_no_queries_is_not_shown_as_ready(world: World) -> None:
    world.service.deploy(wish("doctor-1", "east"))
    mdf, cordon = world.mdfs["east"], Cordon(by="ops", since_s=0.0)
    await world.stands("east", "ready")
    for mdf.cordon, word in (
        (cordon, "cordoned"),
        (msgspec.structs.replace(cordon, draining=True), "draining"),
        (msgspec.UNSET, "ready"),
    ):
        await mdf.tell()
        await world.stands("east", word)
    await mdf.die()
    await world.stands("east", "lost")


async def test_a_facility_that_is_back_in_time_keeps_its_model(world: World) -> None:
    world.service.deploy(wish("doctor-1"))
    await until(lambda: world.view().ready)
    (home,) = world.hosts()
    asked = len(world.asked)
    await world.mdfs[home].die()
    await until(lambda: not world.view().ready)
    await world.mdfs[home].start()
    await until(lambda: world.view().ready)
    assert set(world.places()) == {home}
    assert len(world.asked) == asked


async def test_a_pinned_model_waits_for_its_facility(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone_after_s = 0.4
    world.service.deploy(wish("doctor-1", "east"))
    await until(lambda: world.view().ready)
    monkeypatch.setattr(backoff, "GONE_AFTER_S", gone_after_s)
    await world.mdfs["east"].die()
    world.service.deploy(wish("doctor-2"))  # Meanwhile others are dealt with.
    await until(lambda: world.view("doctor-2").ready)
    await asyncio.sleep(gone_after_s)
    assert set(world.places()) == {"east"}
    world.mdfs["east"].hosted.clear()  # Its disk did not survive.
    await world.mdfs["east"].start()
    await until(lambda: world.view().ready)


async def test_a_facility_that_refuses_is_replaced_and_why_is_told(world: World) -> None:
    for mdf in world.mdfs.values():
        mdf.fails = StorageFull("there is no room")
    world.mdfs["north"].fails = None
    world.service.deploy(wish("doctor-1", replicas=1))
    await until(lambda: world.view().ready)
    assert world.hosts() == {"north"}
    world.service.deploy(wish("doctor-2", "east"))
    await until(lambda: world.view("doctor-2").places[0].detail == "there is no room")
    world.mdfs["east"].fails = None
    await until(lambda: world.view("doctor-2").ready)
    assert world.view("doctor-2").places[0].detail == ""


async def test_a_facility_that_does_not_answer_keeps_nobody_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployments, "ASK_TIMEOUT_S", 10 * PATIENCE_S)
    world.mdfs["east"].deaf = True
    world.service.deploy(wish("doctor-1", "east"))
    await until(lambda: ("deploy", "east", "doctor-1") in world.asked)
    world.service.deploy(wish("doctor-2", "west"))
    await until(lambda: world.view("doctor-2").ready)


async def test_a_model_that_cannot_be_loaded_is_tried_elsewhere(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "FAILING_FOR_S", 0.1)
    for mdf in world.mdfs.values():
        mdf.loads = False
    world.service.deploy(wish("doctor-1"))
    await until(world.hosts)
    (first,) = world.hosts()
    for mdf in world.mdfs.values():
        mdf.loads = True
    await world.mdfs[first].load("doctor-1", DeploymentState.FAILED)
    await until(lambda: world.view().ready)
    await until(lambda: world.hosts() == set(world.places()))
    assert first not in world.hosts()


async def test_wishes_of_one_moment_do_not_fill_one_facility(world: World) -> None:
    for mdf in world.mdfs.values():
        mdf.memory_bytes = 100
        await mdf.tell()
    await until(lambda: {*world.service._room(world.service._facilities()).values()} == {100})
    for name in ("a", "b", "c"):
        world.service.deploy(wish("doctor-1", name=name))
    assert set().union(*(world.kept(name) for name in "abc")) == {"east", "north", "west"}
    world.service.deploy(wish("doctor-1", name="d"))
    assert world.view("d").places == ()
    assert "no facility" in world.view("d").why
    world.service.retire(RetireIntent(name="b"))
    await until(lambda: world.view("d").ready)


async def test_a_model_that_learned_nothing_is_not_deployed(world: World) -> None:
    fresh = msgspec.structs.replace(trained("fresh-1", "9"), untrained=True)
    world.journal.put("model", "fresh-1", encode(fresh))

    with pytest.raises(Refused, match="improved fresh-1") as refused:
        world.service.deploy(wish("fresh-1"))

    assert refused.value.field == "model"


async def test_what_cannot_be_is_refused_with_its_field(world: World) -> None:
    with pytest.raises(NotFound, match="no trained model") as unknown:
        world.service.deploy(wish("nobody-1"))
    assert unknown.value.field == "model"
    with pytest.raises(NotFound) as nowhere:
        world.service.deploy(wish("doctor-1", "east", "moon"))
    assert nowhere.value.field == "to[1]"
    with pytest.raises(InvalidInput):
        world.service.deploy(wish("doctor-1", name="auto"))
    with pytest.raises(InvalidInput):
        world.service.deploy(wish("doctor-1", name="**"))
    with pytest.raises(NotFound):
        world.service.retire(RetireIntent(name="doctor-1"))
    for mdf in list(world.mdfs.values()):
        await mdf.die()
    await until(lambda: not world.service._facilities())
    with pytest.raises(Refused, match="none is connected"):
        world.service.deploy(wish("doctor-1"))
    assert world.service.all().deployments == ()


@pytest.mark.parametrize("crash_at", range(1, 7))
async def test_it_dies_at_any_step_and_loses_nothing(world: World, crash_at: int) -> None:
    """Deployed at two places, replaced by other weights elsewhere, and one retired: requests are
    four to place and three to retire, at most; it dies during one of them."""
    world.crash_at = crash_at

    async def story() -> None:
        world.service.deploy(wish("doctor-1", "east", "west", name="doctor"))
        await until(lambda: world.view("doctor").ready)
        world.sacred.add("doctor")
        world.service.deploy(wish("doctor-2", "west", "north", name="doctor"))
        await until(lambda: world.view("doctor").ready and "east" not in world.hosts("doctor"))
        world.service.retire(RetireIntent(name="doctor", site=SiteId("west")))
        await until(lambda: world.hosts("doctor") == {"north"})

    telling = asyncio.create_task(story())
    crashing = asyncio.create_task(world.crashed.wait())
    await asyncio.wait({telling, crashing}, return_when=asyncio.FIRST_COMPLETED)
    assert world.crashed.is_set()
    telling.cancel()
    wished = world.kept("doctor")
    await world.restart()
    assert world.kept("doctor") == wished
    await until(lambda: world.view("doctor").ready)
    await until(lambda: len(world.service._facilities()) == len(world.mdfs))
    await story()
    assert world.hosts("doctor") == {"north"}
    assert world.mdfs["north"].ready("doctor") == "b" * 64
    assert not world.broken


async def test_replicas_follow_demand_and_what_an_operator_decided_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.service.deploy(wish("doctor-1", replicas=AUTO_REPLICAS))
    world.service.deploy(wish("doctor-2", "west"))
    await until(lambda: world.view("doctor-1").ready and world.view("doctor-2").ready)
    (first,) = world.hosts("doctor-1")
    near = min(world.mdfs.keys() - {first, "west"})
    await world.ask(near, {"doctor-1": 5.0, "doctor-2": 5.0})
    plan = await world.service.placement()
    assert ("doctor-1", near, True) in {(c.name, c.site, c.add) for c in plan.changes}
    assert {c.name for c in plan.changes} == {"doctor-1"}
    world.sacred.add("doctor-1")
    monkeypatch.setattr(deployments, "OPTIMISE_EVERY_S", 0.05)
    await until(lambda: near in world.hosts("doctor-1"))
    await until(lambda: world.hosts("doctor-1") == set(world.places("doctor-1")))
    assert world.hosts("doctor-2") == {"west"}
    assert "doctor-1" in world.view("doctor-1").why
    assert not world.broken


async def test_long_answers_take_more_replicas(world: World) -> None:
    """Five answers a second of two seconds each: more than one slot, or three, can give."""
    world.service.deploy(wish("doctor-1", replicas=AUTO_REPLICAS))
    await until(lambda: world.view().ready)
    (first,) = world.hosts()
    await world.serve(first, "doctor-1", 0.01, 0.02)
    await world.ask(first, {"doctor-1": 5.0}, 1.0)
    await until(lambda: world.heard(first, 1.0))
    assert (await world.service.placement()).changes == ()
    await world.ask(first, {"doctor-1": 5.0}, 100.0)
    await until(lambda: world.heard(first, 100.0))
    assert [c.add for c in (await world.service.placement()).changes] == [True, True]
