"""A home of models that travel by themselves, told of copies of one model by several sites."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daitn.files import items
from daitn.identity.keys import SigningKey
from daitn.identity.orders import OrderBook, sign_order
from daitn.identity.signing import sign_entry
from daitn.identity.statements import check_statement
from daitn.node.agents import host as host_module
from daitn.node.agents.guard import AgentGuard
from daitn.node.agents.home import CHECK_EVERY_S, AgentHome
from daitn.node.agents.host import AgentHost
from daitn.node.agents.itinerary import Itinerary, home_intent
from daitn.node.agents.store import AgentStore, LeftModels
from daitn.node.forwarder.protection import sign_packet
from daitn.node.forwarder.runtime import ForwarderRuntime, NotServed, new_id
from daitn.node.training.work_queue import WorkResult
from daitn.objects.agents import Agent, AgentReport, DatedFact, ReportReply
from daitn.objects.descriptors import DataPolicy, NodeDescriptor, Role
from daitn.objects.errors import Corrupt, InvalidInput, NotFound, Refused
from daitn.objects.identifiers import Digest, JobId, SiteId, VisitId
from daitn.objects.intents import Budget, Quantity, Requirement
from daitn.objects.jobs import CancelRequested, JobEvent, JobState, JobView, Planned, Reported, Woke
from daitn.objects.lineage import Origin
from daitn.objects.messages import RecipeQuestion
from daitn.objects.models import ModelRef
from daitn.objects.orders import SignedOrder
from daitn.objects.requests import AssessIntent, JobList, JobQuery, SubmitIntent
from daitn.objects.roster import Kind, Member
from daitn.objects.wire import decode, encode
from daitn.steering.wire.intent import Capability, PacketIntent, encode_intent
from daitn.steering.wire.packet import Packet, PacketKind
from daitn.steering.wire.replies import Reason, Refusal
from daitn.tools import clock
from daitn.tools.fabric.caller import speaking
from daitn.tools.fabric.memory import MemoryNetwork
from daitn.tools.mobility.releases import Release
from tests.control.jobs.world import DECISION, INTENT, KEYS, NEEDS, VERIFIERS, World
from tests.control.test_next_site import node
from tests.scenes.waiting import PATIENCE_S, until

HOME = SiteId("home")
WANT = home_intent(HOME)


class Nobody:
    """A site that serves nothing."""

    async def serve(self, packet: Packet, intent: PacketIntent) -> bytes:
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
async def living(
    folder: Path, guard: AgentGuard | None = None
) -> AsyncIterator[tuple[AgentHome, Kept]]:
    """A home of which no neighbour is up, so that what sets out waits there."""
    fabric = MemoryNetwork().open("home")
    runtime, kept = ForwarderRuntime(HOME, Nobody()), Kept()
    host = AgentHost(HOME, runtime, AgentStore(folder / "here"), kept.fetch, needs, lambda: None)  # type: ignore[arg-type,return-value]
    ours = AgentStore(folder / "ours")
    home = AgentHome(HOME, fabric, runtime, ours, host, kept, needs, guard)  # type: ignore[arg-type]
    home.start()
    try:
        yield home, kept
    finally:
        await home.close()
        await host.close()
        await runtime.close()
        await fabric.close()


def asked(kind: PacketKind, payload: object) -> Packet:
    return Packet(kind, new_id(), encode_intent(WANT), encode(payload))


async def submitted(home: AgentHome, folder: Path) -> Agent:
    """A job that insists, so that it waits for data; as its home has it on disk."""
    wanted = SubmitIntent(intent=INTENT, insist=True)
    shown = decode(await home.handlers()["submit"]("", encode(wanted)), JobView)
    agent = AgentStore(folder / "ours").get(shown.job)
    assert agent is not None
    return agent


def with_facts(agent: Agent, *events: JobEvent) -> Agent:
    facts = tuple(DatedFact(agent.facts[-1].at_s, event) for event in events)
    return msgspec.structs.replace(agent, facts=(*agent.facts, *facts))


def measured(agent: Agent, visits: int, order: SignedOrder | None = None) -> Agent:
    """The same job, after so many visits that were measured."""
    world = World(job=agent.job, order=order)
    while len(world.job.checkpoints) < visits:
        assert world.step()
    made = tuple(DatedFact(at_s, event) for event, at_s in world.facts[1:])
    return msgspec.structs.replace(agent, facts=(agent.facts[0], *made))


async def told(home: AgentHome, site: str, agent: Agent, *, anew: bool = True) -> ReportReply:
    report = AgentReport(
        site=SiteId(site),
        agent=agent if anew else None,
        job=agent.job,
        epoch=agent.epoch,
        facts=len(agent.facts),
    )
    return decode(await home.serve(asked(PacketKind.QUERY, report), WANT), ReportReply)


async def state(home: AgentHome, job: JobId) -> str:
    found = decode(await home.handlers()["jobs"]("", encode(JobQuery(job=job))), JobList)
    return found.jobs[0].state


@asynccontextmanager
async def host(
    folder: Path,
    node: NodeDescriptor,
    guard: AgentGuard | None = None,
    note: Release | None = None,
    left: LeftModels | None = None,
) -> AsyncIterator[tuple[AgentHost, AgentStore]]:
    """A site to which weights come, and that never ends its work."""
    runtime, store = ForwarderRuntime(node.site, Nobody()), AgentStore(folder / "here")

    async def bring(model: ModelRef, of: RecipeQuestion) -> None:
        return None

    async def perform(work: object) -> WorkResult:
        await asyncio.Event().wait()
        raise AssertionError

    built = AgentHost(
        node.site, runtime, store, bring, perform, lambda: node, guard, note, left=left
    )
    try:
        yield built, store
    finally:
        await built.close()
        await runtime.close()


def planning(*required: Requirement, order: SignedOrder | None = None) -> Agent:
    """A job of which the fresh model was measured."""
    intent = msgspec.structs.replace(INTENT, requirements=required, budget=Budget())
    world = World(intent=intent, order=order, job="qa-home-1")
    while not (world.job.checkpoints and world.job.state is JobState.PLANNING):
        assert world.step()
    facts = tuple(DatedFact(at_s, event) for event, at_s in world.facts)
    return Agent(job=world.job.id, home=HOME, facts=facts)


ACME, CURIOUS, EAST, WEST = (SigningKey.generate() for _ in range(4))
OWNERS = {
    key.public: Member(name=name, kind=Kind.OWNER, public_key=key.public, until_s=2000.0)
    for name, key in (("acme", ACME), ("curious", CURIOUS))
}


def sites(**keys: SigningKey) -> dict[str, Member]:
    every = (Role.DATA, Role.VERIFIER)
    return {
        key.public: Member(
            name=name, kind=Kind.SITE, public_key=key.public, until_s=2000.0, roles=every
        )
        for name, key in keys.items()
    }


HOME_KEY = SigningKey.generate()
MEMBERS = {**OWNERS, **sites(east=EAST, west=WEST, home=HOME_KEY, **KEYS, **VERIFIERS)}
ORDERS = OrderBook("net", lambda: MEMBERS, lambda: 1000.0)
GUARD = AgentGuard(ORDERS, HOME_KEY)


async def test_a_site_takes_over_no_model_that_its_owner_did_not_order(tmp_path: Path) -> None:
    intent = msgspec.structs.replace(INTENT, budget=Budget())
    orders = {
        "nobody ordered it": None,
        "cannot order for acme": sign_order(intent, "net", 2000.0, CURIOUS),
        "not an owner": sign_order(intent, "net", 2000.0, SigningKey.generate()),
        "another intent": sign_order(INTENT, "net", 2000.0, ACME),
        "expired": sign_order(intent, "net", 999.0, ACME),
    }
    found = node(
        "clinic",
        "medicine",
        data_schema=NEEDS.data_schema,
        recipes=("classifier",),
        policy=DataPolicy(recipes=("classifier",)),
    )
    async with host(tmp_path, found, GUARD) as (here, store):
        for refused, order in orders.items():
            packet, seeks = arrived(planning(order=order), "medicine")
            with pytest.raises(NotServed, match=refused):
                await here.serve(GUARD.sign(packet), seeks)
            assert store.all() == ()
        good = sign_order(intent, "net", 2000.0, ACME)
        packet, seeks = arrived(planning(order=good), "medicine")
        await here.serve(GUARD.sign(packet), seeks)
        assert len(store.all()) == 1


CLINIC = node(
    "clinic",
    "medicine",
    data_schema=NEEDS.data_schema,
    recipes=("classifier",),
    policy=DataPolicy(recipes=("classifier",)),
)


def under_way() -> Agent:
    intent = msgspec.structs.replace(INTENT, budget=Budget())
    return planning(order=sign_order(intent, "net", 2000.0, ACME))


def with_entry(agent: Agent, nth: int, key: SigningKey, **changes: Any) -> Agent:
    """The agent, with the nth report about other facts, signed with another key."""
    facts, found = list(agent.facts), -1
    for place, fact in enumerate(facts):
        event = fact.event
        if isinstance(event, Reported) and event.outcome.entry is not None:
            found += 1
            if found == nth:
                entry = event.outcome.entry
                told = msgspec.structs.replace(entry.fact, **changes)
                outcome = msgspec.structs.replace(
                    event.outcome,
                    site=told.site,
                    entry=sign_entry(told, entry.previous, key),
                )
                facts[place] = DatedFact(fact.at_s, Reported(outcome))
    return msgspec.structs.replace(agent, facts=tuple(facts))


async def test_a_site_takes_a_model_from_whoever_has_it_only(tmp_path: Path) -> None:
    packet, seeks = arrived(under_way(), "medicine")
    refused = {
        "not signed": packet,
        "not a site": sign_packet(packet, SigningKey.generate()),
        "not a site of": sign_packet(packet, ACME),
        "east does not have": sign_packet(packet, EAST),
        "specialist does not have": sign_packet(packet, KEYS["specialist"]),
    }
    async with host(tmp_path, CLINIC, GUARD) as (here, store):
        for why, sent in refused.items():
            with pytest.raises(NotServed, match=why):
                await here.serve(sent, seeks)
        assert store.all() == ()
        await here.serve(sign_packet(packet, VERIFIERS["mpvu-broad"]), seeks)
        assert len(store.all()) == 1


async def test_a_site_takes_no_model_of_which_sites_did_not_sign_how_it_was_made(
    tmp_path: Path,
) -> None:
    """The first report is about the fresh model, the next two are measurements."""
    agent = under_way()
    tampered = {
        "signature of a stranger": with_entry(agent, 0, SigningKey.generate()),
        "of another site": with_entry(agent, 0, EAST),
        "measured by a stranger": with_entry(agent, 1, SigningKey.generate(), value=1.0),
        "measured by an owner": with_entry(agent, 1, ACME, value=1.0),
        "another home": msgspec.structs.replace(agent, home=SiteId("east")),
    }
    async with host(tmp_path, CLINIC, GUARD) as (here, store):
        for what, sent in tampered.items():
            packet, seeks = arrived(sent, "medicine")
            with pytest.raises((NotServed, Corrupt)):
                await here.serve(sign_packet(packet, VERIFIERS["mpvu-broad"]), seeks)
            assert store.all() == (), what
        without = {k: m for k, m in MEMBERS.items() if m.name != "mpvu-broad"}
        for members in (without, {**without, **no_verifier("mpvu-broad")}):
            guard = AgentGuard(OrderBook("net", members.copy, ORDERS.now_s), HOME_KEY)
            with pytest.raises(Corrupt):
                guard.check_models(Itinerary.of(agent))
        GUARD.check_models(Itinerary.of(agent))


@pytest.mark.parametrize("name", ["7", "qa-1", "qa-east-1", "qa-home-", "qa-home-x", "qa-home-1-1"])
def test_a_job_is_called_after_its_home(name: str) -> None:
    itinerary = Itinerary.of(under_way())
    GUARD.check_order(itinerary)
    itinerary.job.id = JobId(name)
    with pytest.raises(Refused, match="not a job of home"):
        GUARD.check_order(itinerary)


async def test_whose_a_model_is_and_where_it_may_go_is_known_before_it_is_fetched(
    tmp_path: Path,
) -> None:
    noted: list[tuple[Digest, str, tuple[str, ...]]] = []
    agent = under_way()
    (model,) = Itinerary.of(agent).models()
    async with host(tmp_path, CLINIC, GUARD, lambda *known: noted.append(known)) as (here, _):
        packet, seeks = arrived(agent, "medicine")
        await here.serve(sign_packet(packet, VERIFIERS["mpvu-broad"]), seeks)
        assert noted == [(model.manifest, "acme", ("*",))]


def no_verifier(name: str) -> dict[str, Member]:
    (member,) = sites(**{name: VERIFIERS[name]}).values()
    return {member.public_key: msgspec.structs.replace(member, roles=(Role.DATA,))}


async def test_a_home_hears_of_a_model_from_the_site_that_has_it_only(tmp_path: Path) -> None:
    """Any member could call the true copy stale, or bring home another model."""
    async with living(tmp_path, GUARD) as (home, _):
        order = sign_order(INTENT, "net", 2000.0, ACME)
        wanted = encode(SubmitIntent(intent=INTENT, insist=True, order=order))
        with speaking(OWNERS[ACME.public]):
            job = decode(await home.handlers()["submit"]("", wanted), JobView).job
        start = AgentStore(tmp_path / "ours").get(job)
        assert start is not None
        true = measured(start, 1, order)

        async def tell(
            key: SigningKey | None, told: Agent, site: str = "mpvu-broad", **changes: Any
        ) -> ReportReply:
            report = AgentReport(
                site=SiteId(site), agent=told, job=job, epoch=told.epoch, facts=len(told.facts)
            )
            packet = asked(PacketKind.QUERY, msgspec.structs.replace(report, **changes))
            sent = sign_packet(packet, key) if key else packet
            return decode(await home.serve(sent, WANT), ReportReply)

        own, far = VERIFIERS["mpvu-broad"], 10**9
        lies: list[tuple[SigningKey | None, Agent, dict[str, Any]]] = [
            (None, true, {}),
            (SigningKey.generate(), true, {}),
            (ACME, true, {}),
            (EAST, true, {}),
            (EAST, true, {"site": "east"}),
            (EAST, true, {"site": "east", "agent": None, "facts": far}),
            (own, true, {"facts": far}),
            (own, true, {"agent": None, "facts": far}),
            (own, msgspec.structs.replace(true, epoch=7), {}),
            (own, with_entry(true, 0, EAST), {}),
            (own, with_entry(true, 2, own, value=1.0), {}),
        ]
        for key, agent, changes in lies:
            with pytest.raises((Refused, Corrupt)):
                await tell(key, agent, **changes)
        assert await tell(own, true) is ReportReply.YES
        assert await tell(own, true, agent=None) is ReportReply.YES
        with pytest.raises(Refused):
            await tell(EAST, true, agent=None)
        ended = with_facts(true, CancelRequested())
        back = asked(PacketKind.MODEL, ended)
        for sent in (back, sign_packet(back, EAST), sign_packet(back, ACME)):
            with pytest.raises((Refused, Corrupt)):
                await home.serve(sent, WANT)
        forged = asked(PacketKind.MODEL, with_entry(ended, 2, own, value=1.0))
        with pytest.raises(Corrupt):
            await home.serve(sign_packet(forged, own), WANT)
        assert await home.serve(sign_packet(back, own), WANT) == b""


async def test_whatever_fails_at_a_host_ends_in_a_state_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose work failed in an unforeseen way was stuck there, under way for ever."""

    async def fails(*given: object) -> WorkResult:
        raise ValueError("a secret")

    async with host(tmp_path, CLINIC) as (here, store):
        monkeypatch.setattr(here, "_perform", fails)
        await here.serve(*arrived(planning(), "medicine"))

        def failed() -> bool:
            reports = [f.event for one in store.all() for f in one.facts[-6:]]
            found = [e.outcome for e in reports if isinstance(e, Reported) and e.outcome.error]
            return any("clinic failed at this work: ValueError" in str(o.error) for o in found)

        await until(failed)
        assert "a secret" not in str(store.all())
    async with host(tmp_path / "other", CLINIC) as (here, store):
        monkeypatch.setattr(here, "_to_data", fails)
        here.send_out(planning())
        await until(lambda: any(Itinerary.of(one).job.state.final for one in store.all()))
        (agent,) = store.all()
        assert Itinerary.of(agent).job.state is JobState.FAILED


async def test_what_a_host_did_is_signed_for_people_outside_the_network_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fact = Origin(
        job=JobId("qa-home-1"), visit=VisitId("1"), site=CLINIC.site, at_s=1.0,
        recipe="classifier", seed=0, model=Digest("a" * 64),
    )  # fmt: skip
    entry = sign_entry(fact, (), HOME_KEY)

    async def performs(*given: object) -> WorkResult:
        return WorkResult(entry=entry, model=None)

    order = sign_order(msgspec.structs.replace(INTENT, budget=Budget()), "net", 2000.0, ACME)
    async with host(tmp_path, CLINIC, GUARD) as (here, store):
        monkeypatch.setattr(here, "_perform", performs)
        packet, seeks = arrived(planning(order=order), "medicine")
        await here.serve(GUARD.sign(packet), seeks)

        def stated() -> list[bytes]:
            events = [fact.event for one in store.all() for fact in one.facts]
            return [one.statement for one in events if isinstance(one, Reported) and one.statement]

        await until(lambda: bool(stated()))
        check_statement(stated()[0], entry, "net")


async def test_where_it_arrives_its_weights_come_from_its_home_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The home has copies of what was measured, for when all who worked on it are gone."""
    asked_for: list[ModelRef] = []

    async def bring(model: ModelRef, of: RecipeQuestion) -> None:
        asked_for.append(model)

    agent = planning()
    async with host(tmp_path, CLINIC) as (here, _):
        monkeypatch.setattr(here, "_prefetch", bring)
        await here.serve(*arrived(agent, "medicine"))
    before = Itinerary.of(agent).models()
    assert [one.manifest for one in asked_for] == [one.manifest for one in before]
    for one, model in zip(asked_for, before, strict=True):
        assert one.holders == (*model.holders, HOME), "home last, where it is no holder already"


async def test_a_home_knows_its_owners(tmp_path: Path) -> None:
    acme, curious = OWNERS[ACME.public], OWNERS[CURIOUS.public]
    order = sign_order(INTENT, "net", 2000.0, ACME)
    wanted = encode(SubmitIntent(intent=INTENT, insist=True, order=order))
    async with living(tmp_path, GUARD) as (home, _):
        verbs = home.handlers()
        with speaking(curious), pytest.raises(Refused, match="not yours"):
            await verbs["submit"]("", wanted)
        with speaking(acme), pytest.raises(Refused, match="nobody ordered it"):
            await verbs["submit"]("", encode(SubmitIntent(intent=INTENT, insist=True)))
        with speaking(acme):
            job = decode(await verbs["submit"]("", wanted), JobView).job
            assert decode(await verbs["submit"]("", wanted), JobView).job == job, "one order"
        one, every = encode(JobQuery(job=job)), encode(JobQuery(job=JobId("")))
        with speaking(curious):
            for verb in ("jobs", "decisions", "lineage", "cancel"):
                with pytest.raises(NotFound, match="is not the home"):
                    await verbs[verb]("", one)
            assert decode(await verbs["jobs"]("", every), JobList).jobs == ()
        root = Member(kind=Kind.OPERATOR, name="root", public_key="k", until_s=2000.0)
        with speaking(root):
            await verbs["cancel"]("", one)
            with pytest.raises(Refused, match="already cancelled"):
                await verbs["cancel"]("", one)
            view = decode(await verbs["jobs"]("", one), JobList).jobs[0]
        assert (view.state, view.detail) == (JobState.CANCELLED, "root cancelled it")


async def test_a_model_comes_home_as_the_job_that_it_left_as(tmp_path: Path) -> None:
    async with living(tmp_path) as (home, _):
        start = await submitted(home, tmp_path)
        first = msgspec.structs.replace(start.facts[0].event, insist=False)
        other = msgspec.structs.replace(
            start, facts=(DatedFact(start.facts[0].at_s, first), *start.facts[1:])
        )
        with pytest.raises(Corrupt, match="another"):
            await told(home, "east", other)
        with pytest.raises(Corrupt, match="another"):
            await home.serve(asked(PacketKind.MODEL, other), WANT)


def arrived(agent: Agent, topic: str) -> tuple[Packet, PacketIntent]:
    intent = PacketIntent(Capability.DATA, topic)
    return Packet(PacketKind.MODEL, new_id(), encode_intent(intent), encode(agent)), intent


async def test_where_it_arrives_the_intent_is_held_against_the_site(tmp_path: Path) -> None:
    agent = planning(Requirement(quantity=Quantity.QUALITY, at_least=0.9))
    cases: dict[str, dict[str, Any]] = {
        "quality": {"quality": 0.5},
        "memory": {"memory_bytes": 0},
        "table/2": {"data_schema": "table/2"},
        "owner": {"policy": DataPolicy(recipes=("classifier",), owners=("bob",))},
    }
    for refused, changes in cases.items():
        plain = {"data_schema": NEEDS.data_schema, "policy": DataPolicy(recipes=("classifier",))}
        found = node("clinic", "medicine", recipes=("classifier",), **{**plain, **changes})
        async with host(tmp_path / refused.replace("/", "-"), found) as (here, store):
            with pytest.raises(NotServed, match=refused):
                await here.serve(*arrived(agent, "medicine"))
            assert store.all() == ()


async def test_what_was_found_where_it_learned_goes_with_it(tmp_path: Path) -> None:
    found = node(
        "clinic",
        "medicine",
        data_schema=NEEDS.data_schema,
        recipes=("classifier",),
        policy=DataPolicy(recipes=("classifier",)),
        labels={"a": 3000},
    )
    async with host(tmp_path, found) as (here, store):
        await here.serve(*arrived(planning(), "medicine"))
        await asyncio.sleep(0)
        (agent,) = store.all()
        itinerary = Itinerary.of(agent)
        assert itinerary.job.met[found.site].datasets[0].labels == {"a": 3000}
        assert itinerary.job.stop is not None
        assert (itinerary.job.stop.site, itinerary.job.stop.dataset) == ("clinic", "qa")
        assert itinerary.job.decision is not None
        assert itinerary.job.decision.policy == "mtrce"


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
        assert AgentStore(tmp_path / "ours").all() == ()


async def test_of_two_copies_of_an_agent_only_the_one_further_ahead_continues(
    tmp_path: Path,
) -> None:
    async with living(tmp_path) as (home, _):
        start = await submitted(home, tmp_path)
        once, twice = measured(start, 1), measured(start, 2)
        assert await told(home, "east", once) is ReportReply.YES
        assert await told(home, "west", once) is ReportReply.STALE
        assert await told(home, "east", once, anew=False) is ReportReply.YES
        assert await told(home, "west", twice) is ReportReply.YES, "it got further"
        assert await told(home, "east", once, anew=False) is ReportReply.STALE


async def test_the_first_copy_that_comes_home_is_the_one(tmp_path: Path) -> None:
    async with living(tmp_path) as (home, _):
        start = await submitted(home, tmp_path)
        ended = with_facts(measured(start, 1), CancelRequested())
        assert await told(home, "west", measured(start, 2)) is ReportReply.YES
        assert await home.serve(asked(PacketKind.MODEL, ended), WANT) == b""
        assert await state(home, start.job) == "cancelled"
        assert await told(home, "west", measured(start, 3)) is ReportReply.STALE


async def test_measured_weights_are_kept_at_home_too(tmp_path: Path) -> None:
    async with living(tmp_path) as (home, kept):
        start = await submitted(home, tmp_path)
        await told(home, "east", measured(start, 1))
        await asyncio.wait_for(kept.some.wait(), PATIENCE_S)
        await asyncio.sleep(2 * CHECK_EVERY_S)
        assert len(kept.fetched) == 1
        assert kept.fetched[0].manifest in home.models()


async def test_agents_that_have_ended_are_not_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with living(tmp_path) as (home, _):
        for _ in range(20):
            start = await submitted(home, tmp_path)
            await told(home, "east", measured(start, 1))
            await home.handlers()["cancel"]("", encode(JobQuery(job=start.job)))
        under_way = await submitted(home, tmp_path)
        weights = home.models()
    read: list[object] = []

    def counted(data: bytes, kind: type[Any]) -> Any:
        read.append(kind)
        return decode(data, kind)

    async with living(tmp_path) as (home, _):
        assert home.models() == weights
        monkeypatch.setattr(items, "decode", counted)
        await asyncio.sleep(3 * CHECK_EVERY_S)
        assert home.models() == weights
        assert read == []
        assert await told(home, "east", under_way) is ReportReply.YES
        assert read == []
        shown = decode(await home.handlers()["jobs"]("", encode(JobQuery(job=JobId("")))), JobList)
        assert len(shown.jobs) == 21


async def test_an_agent_that_is_sent_out_anew_again_and_again_has_one_task(
    tmp_path: Path,
) -> None:
    before = asyncio.all_tasks()
    async with host(tmp_path, node("clinic", "medicine")) as (here, _):
        agent = planning()
        for epoch in range(30):
            here.send_out(msgspec.structs.replace(agent, epoch=epoch))
        await asyncio.sleep(0.05)
        names = [task.get_name() for task in asyncio.all_tasks() - before]
        assert names.count(f"model {agent.job}") == 1
    assert not asyncio.all_tasks() - before


async def test_a_wait_dated_in_the_future_by_a_fast_clock_is_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_module, "RETRY_AT_MOST_S", 0.05)
    waits = Planned(route=None, decision=DECISION, waiting_for="sites that are away")
    agent = planning()
    ahead = DatedFact(clock.now_s() + 86_400.0, waits)
    agent = msgspec.structs.replace(agent, facts=(*agent.facts, ahead))
    assert Itinerary.of(agent).job.state is JobState.WAITING
    async with host(tmp_path, node("clinic", "medicine")) as (here, store):
        here.send_out(agent)

        def went_on() -> bool:
            return any(len(kept.facts) > len(agent.facts) for kept in store.all())

        await until(went_on)


def test_whoever_takes_an_agent_over_makes_it_later() -> None:
    world = World()
    facts = tuple(DatedFact(at_s, event) for event, at_s in world.facts)
    agent = Agent(job=JobId("qa-1"), home=HOME, facts=facts)
    assert with_facts(agent, Woke()).stage() > agent.stage()
    anew = msgspec.structs.replace(agent, epoch=1)
    assert anew.stage() > with_facts(agent, Woke()).stage()
