"""A home of models that travel by themselves, told of copies of one model by several sites."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daitn.objects.descriptors import DataPolicy, NodeDescriptor
from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import JobId, SiteId
from daitn.objects.intents import Budget, Quantity, Requirement
from daitn.objects.jobs import CancelRequested, JobEvent, JobState, JobView, Woke
from daitn.objects.journeys import Dated, Heard, Journey, Note
from daitn.objects.messages import RecipeQuestion
from daitn.objects.models import ModelRef
from daitn.objects.requests import AssessIntent, JobList, JobQuery, SubmitIntent
from daitn.objects.wire import decode, encode
from daitn.steering.wire.packet import Kind, Packet
from daitn.steering.wire.replies import Reason, Refusal
from daitn.steering.wire.want import Capability, Want, encode_want
from daitn.terminal.desk import Done
from daitn.terminal.forwarder.post import NotServed, Post, new_id
from daitn.terminal.journeys.going import Going, home_want
from daitn.terminal.journeys.home import LOOKED_EVERY_S, Home
from daitn.terminal.journeys.luggage import Luggage
from daitn.terminal.journeys.station import Station
from daitn.tools.fabric.memory import MemoryNetwork
from tests.control.jobs.world import INTENT, NEEDS, World
from tests.control.test_next_site import node

HOME = SiteId("home")
WANT = home_want(HOME)


class Nobody:
    """A site that serves nothing."""

    async def serve(self, packet: Packet, want: Want) -> bytes:
        raise NotServed(Refusal(Reason.FAILED))


class Kept:
    """Weights are nowhere; asked for, they come."""

    def __init__(self) -> None:
        self.fetched: list[ModelRef] = []
        self.some = asyncio.Event()

    async def fetch(self, model: ModelRef, progress: object) -> None:
        self.fetched.append(model)
        self.some.set()


async def needs(question: RecipeQuestion) -> object:
    return NEEDS


@asynccontextmanager
async def living(folder: Path) -> AsyncIterator[tuple[Home, Kept]]:
    """A home of which no neighbour is up, so that what sets out waits there."""
    fabric = MemoryNetwork().open("home")
    post, kept = Post(HOME, Nobody()), Kept()
    station = Station(HOME, post, Luggage(folder / "here"), kept.fetch, needs, lambda: None)  # type: ignore[arg-type,return-value]
    home = Home(HOME, fabric, post, Luggage(folder / "ours"), station, kept, needs)  # type: ignore[arg-type]
    home.start()
    try:
        yield home, kept
    finally:
        await home.close()
        await station.close()
        await post.close()
        await fabric.close()


def asked(kind: Kind, payload: object) -> Packet:
    return Packet(kind, new_id(), encode_want(WANT), encode(payload))


async def submitted(home: Home, folder: Path) -> Journey:
    """A job that insists, so that it waits for data; as its home has it on disk."""
    wanted = SubmitIntent(intent=INTENT, insist=True)
    shown = decode(await home.handlers()["submit"]("", encode(wanted)), JobView)
    journey = Luggage(folder / "ours").get(shown.job)
    assert journey is not None
    return journey


def with_facts(journey: Journey, *events: JobEvent) -> Journey:
    facts = tuple(Dated(journey.facts[-1].at_s, event) for event in events)
    return msgspec.structs.replace(journey, facts=(*journey.facts, *facts))


def measured(journey: Journey, visits: int) -> Journey:
    """The same job, after so many visits that were measured."""
    world = World(job=journey.job)
    while len(world.job.checkpoints) < visits:
        assert world.step()
    made = tuple(Dated(at_s, event) for event, at_s in world.facts[1:])
    return msgspec.structs.replace(journey, facts=(journey.facts[0], *made))


async def told(home: Home, site: str, journey: Journey, *, anew: bool = True) -> Heard:
    note = Note(
        site=SiteId(site),
        journey=journey if anew else None,
        job=journey.job,
        epoch=journey.epoch,
        facts=len(journey.facts),
    )
    return decode(await home.serve(asked(Kind.QUERY, note), WANT), Heard)


async def state(home: Home, job: JobId) -> str:
    found = decode(await home.handlers()["jobs"]("", encode(JobQuery(job=job))), JobList)
    return found.jobs[0].state


@asynccontextmanager
async def station(folder: Path, node: NodeDescriptor) -> AsyncIterator[tuple[Station, Luggage]]:
    """A site to which weights come, and that never ends its work."""
    post, luggage = Post(node.site, Nobody()), Luggage(folder / "here")

    async def bring(model: ModelRef) -> None:
        return None

    async def perform(work: object) -> Done:
        await asyncio.Event().wait()
        raise AssertionError

    built = Station(node.site, post, luggage, bring, perform, lambda: node)
    try:
        yield built, luggage
    finally:
        await built.close()
        await post.close()


def planning(*required: Requirement) -> Journey:
    """A job of which the fresh model was measured."""
    world = World(intent=msgspec.structs.replace(INTENT, requirements=required, budget=Budget()))
    while not (world.job.checkpoints and world.job.state is JobState.PLANNING):
        assert world.step()
    facts = tuple(Dated(at_s, event) for event, at_s in world.facts)
    return Journey(job=world.job.id, home=HOME, facts=facts)


def arrived(journey: Journey, topic: str) -> tuple[Packet, Want]:
    want = Want(Capability.DATA, topic)
    return Packet(Kind.MODEL, new_id(), encode_want(want), encode(journey)), want


async def test_where_it_arrives_the_intent_is_held_against_the_site(tmp_path: Path) -> None:
    journey = planning(Requirement(quantity=Quantity.QUALITY, at_least=0.9))
    cases: dict[str, dict[str, Any]] = {
        "quality": {"quality": 0.5},
        "memory": {"memory_bytes": 0},
        "table/2": {"data_schema": "table/2"},
        "owner": {"policy": DataPolicy(recipes=("classifier",), owners=("bob",))},
    }
    for refused, changes in cases.items():
        plain = {"data_schema": NEEDS.data_schema, "policy": DataPolicy(recipes=("classifier",))}
        found = node("clinic", "medicine", recipes=("classifier",), **{**plain, **changes})
        async with station(tmp_path / refused.replace("/", "-"), found) as (here, luggage):
            with pytest.raises(NotServed, match=refused):
                await here.serve(*arrived(journey, "medicine"))
            assert luggage.all() == ()


async def test_what_was_found_where_it_learned_goes_with_it(tmp_path: Path) -> None:
    found = node(
        "clinic",
        "medicine",
        data_schema=NEEDS.data_schema,
        recipes=("classifier",),
        policy=DataPolicy(recipes=("classifier",)),
        labels={"a": 3000},
    )
    async with station(tmp_path, found) as (here, luggage):
        await here.serve(*arrived(planning(), "medicine"))
        await asyncio.sleep(0)
        (journey,) = luggage.all()
        going = Going.of(journey)
        assert going.job.met[found.site].datasets[0].labels == {"a": 3000}
        assert going.job.stop is not None
        assert (going.job.stop.site, going.job.stop.dataset) == ("clinic", "qa")
        assert going.job.decision is not None
        assert going.job.decision.policy == "mtrce"


async def test_what_cannot_be_kept_is_refused_at_once(tmp_path: Path) -> None:
    far = Requirement(quantity=Quantity.RTT_S, at_most=0.1)
    intent = msgspec.structs.replace(INTENT, requirements=(far,))
    async with living(tmp_path) as (home, _):
        for verb, question in (
            ("submit", SubmitIntent(intent=intent, insist=True)),
            ("assess", AssessIntent(intent=intent)),
        ):
            with pytest.raises(InvalidInput) as refused:
                await home.handlers()[verb]("", encode(question))
            assert refused.value.field == "requirements[0]"
        assert Luggage(tmp_path / "ours").all() == ()


async def test_of_two_copies_one_goes_on(tmp_path: Path) -> None:
    async with living(tmp_path) as (home, _):
        start = await submitted(home, tmp_path)
        once, twice = measured(start, 1), measured(start, 2)
        assert await told(home, "east", once) is Heard.YES
        assert await told(home, "west", once) is Heard.STALE
        assert await told(home, "east", once, anew=False) is Heard.YES
        assert await told(home, "west", twice) is Heard.YES, "it got further"
        assert await told(home, "east", once, anew=False) is Heard.STALE


async def test_the_first_copy_that_comes_home_is_the_one(tmp_path: Path) -> None:
    async with living(tmp_path) as (home, _):
        start = await submitted(home, tmp_path)
        ended = with_facts(measured(start, 1), CancelRequested())
        assert await told(home, "west", measured(start, 2)) is Heard.YES
        assert await home.serve(asked(Kind.MODEL, ended), WANT) == b""
        assert await state(home, start.job) == "cancelled"
        assert await told(home, "west", measured(start, 3)) is Heard.STALE


async def test_measured_weights_are_kept_at_home_too(tmp_path: Path) -> None:
    async with living(tmp_path) as (home, kept):
        start = await submitted(home, tmp_path)
        await told(home, "east", measured(start, 1))
        await asyncio.wait_for(kept.some.wait(), 20)
        await asyncio.sleep(2 * LOOKED_EVERY_S)
        assert len(kept.fetched) == 1
        assert kept.fetched[0].manifest in home.models()


def test_whoever_takes_a_journey_over_makes_it_later() -> None:
    world = World()
    facts = tuple(Dated(at_s, event) for event, at_s in world.facts)
    journey = Journey(job=JobId("qa-1"), home=HOME, facts=facts)
    assert with_facts(journey, Woke()).stage() > journey.stage()
    anew = msgspec.structs.replace(journey, epoch=1)
    assert anew.stage() > with_facts(journey, Woke()).stage()
