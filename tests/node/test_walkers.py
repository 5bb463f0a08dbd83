"""Several models that travel for one job: at their home, and at sites where they meet."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from daitn.node.agents import store as store_module
from daitn.node.agents.home import AgentHome
from daitn.node.agents.itinerary import Itinerary
from daitn.node.agents.store import AgentStore, LeftModels
from daitn.node.forwarder.runtime import NotServed
from daitn.objects.agents import Agent, AgentReport, DatedFact, ReportReply
from daitn.objects.errors import InvalidInput, StorageFull
from daitn.objects.identifiers import Digest, JobId, SiteId
from daitn.objects.intents import Budget, Training
from daitn.objects.jobs import (
    CancelRequested,
    JobState,
    JobView,
    LeftModel,
    Planned,
    Reported,
    SiteLost,
    WorkNeeds,
)
from daitn.objects.lineage import Merge
from daitn.objects.merging import Algorithm
from daitn.objects.messages import RecipeQuestion, WorkState
from daitn.objects.requests import DecisionList, JobList, JobQuery, SubmitIntent, TrainedModel
from daitn.objects.wire import decode, encode
from daitn.steering.wire.packet import PacketKind
from daitn.tools import clock
from tests.control.jobs.test_meeting import GOSSIP, WALKERS, Walker
from tests.control.jobs.world import DECISION, NEEDS
from tests.control.test_next_site import NOW_S, job, prospect, visited
from tests.control.test_next_site import asked as asked_where
from tests.scenes.waiting import until

from . import test_agents
from .test_agents import CLINIC, HOME, WANT, arrived, asked, host, living, with_facts

SIZES = {"ghr": 3000, "ninds": 2900, "cdc": 2800}
MERGES = msgspec.structs.replace(NEEDS, merges=True, merges_fresh=True)


@pytest.fixture(autouse=True)
def averages(monkeypatch: pytest.MonkeyPatch) -> None:
    async def needs(question: RecipeQuestion) -> WorkNeeds:
        return MERGES

    monkeypatch.setattr(test_agents, "needs", needs)


async def submitted(home: AgentHome, folder: Path) -> list[Agent]:
    wanted = SubmitIntent(intent=GOSSIP, insist=True)
    shown = decode(await home.handlers()["submit"]("", encode(wanted)), JobView)
    found = [AgentStore(folder / "ours").get(shown.job, walker) for walker in range(WALKERS)]
    agents = [one for one in found if one is not None]
    assert len(agents) == WALKERS
    return agents


async def told(home: AgentHome, site: str, agent: Agent) -> ReportReply:
    report = AgentReport(
        site=SiteId(site),
        agent=agent,
        job=agent.job,
        walker=agent.walker,
        epoch=agent.epoch,
        facts=len(agent.facts),
    )
    return decode(await home.serve(asked(PacketKind.QUERY, report), WANT), ReportReply)


async def shown(home: AgentHome, job: JobId) -> JobView:
    found = decode(await home.handlers()["jobs"]("", encode(JobQuery(job=job))), JobList)
    assert len(found.jobs) == 1
    return found.jobs[0]


def walked(agent: Agent, *sites: str, skill: float = 0.5) -> Agent:
    """The agent after visits that were measured."""
    world = Walker(agent.walker, {}, order=None)
    assert world.job.id == agent.job
    for site in sites:
        world.visit(site)
        world.skill = dict.fromkeys(world.skill, skill)
        while world.job.state is JobState.VERIFYING:
            world.step()
    made = tuple(DatedFact(at_s, event) for event, at_s in world.facts[1:])
    return msgspec.structs.replace(agent, facts=(agent.facts[0], *made))


def ended(folder: Path, *agents: Agent) -> bool:
    """Whether home has ended these, so that their hosts are told so."""
    ours = AgentStore(folder / "ours")
    now = [ours.get(agent.job, agent.walker) for agent in agents]
    return all(one is not None and one.epoch > 0 for one in now)


async def test_a_job_of_several_models_is_one_job(tmp_path: Path) -> None:
    async with living(tmp_path) as (home, _):
        agents = await submitted(home, tmp_path)
        every = encode(JobQuery(job=JobId("")))
        listed = decode(await home.handlers()["jobs"]("", every), JobList)
        assert [one.job for one in listed.jobs] == [agents[0].job]
        for agent in agents[:2]:
            assert await told(home, "east", walked(agent, "general")) is ReportReply.YES
        whole = await shown(home, agents[0].job)
        assert whole.examples == 200
        assert len(whole.route) == 2
        assert whole.algorithm == "gossip"
        one = encode(JobQuery(job=agents[0].job))
        made = decode(await home.handlers()["decisions"]("", one), DecisionList).decisions
        assert [each.number for each in made] == list(range(1, len(made) + 1))
        assert [each.at_s for each in made] == sorted(each.at_s for each in made)
        model = decode(await home.handlers()["lineage"]("", one), TrainedModel)
        assert model.job.model is not None
        await home.handlers()["cancel"]("", one)
        assert (await shown(home, agents[0].job)).state == "cancelled"
        for agent in agents:
            assert await told(home, "east", walked(agent, "general")) is ReportReply.STALE


async def test_what_sites_signed_for_others_comes_with_the_model(tmp_path: Path) -> None:
    async with living(tmp_path) as (home, _):
        first, *_ = await submitted(home, tmp_path)
        back = walked(first, "general")
        facts = tuple(
            msgspec.structs.replace(one, event=Reported(one.event.outcome, b"signed"))
            if isinstance(one.event, Reported)
            else one
            for one in back.facts
        )
        back = msgspec.structs.replace(back, facts=facts)
        assert await told(home, "east", back) is ReportReply.YES
        one = encode(JobQuery(job=first.job))
        trained = decode(await home.handlers()["lineage"]("", one), TrainedModel)
        made = [entry.digest for entry in trained.lineage.entries]
        assert made
        assert [stated.entry for stated in trained.statements] == made


async def test_copies_are_told_apart_from_other_models_of_the_job(tmp_path: Path) -> None:
    async with living(tmp_path) as (home, _):
        first, second, _ = await submitted(home, tmp_path)
        assert await told(home, "east", walked(first, "general")) is ReportReply.YES
        assert await told(home, "west", walked(first, "general")) is ReportReply.STALE
        assert await told(home, "west", walked(second, "general")) is ReportReply.YES


async def test_one_that_has_reached_the_targets_ends_the_others(tmp_path: Path) -> None:
    async with living(tmp_path) as (home, _):
        first, second, third = await submitted(home, tmp_path)
        best = walked(second, "general", skill=0.95)
        assert Itinerary.of(best).job.state is JobState.REACHED
        await home.serve(asked(PacketKind.MODEL, best), WANT)
        whole = await shown(home, first.job)
        assert whole.state == "reached"
        model = Itinerary.of(best).job.best
        assert model is not None
        assert whole.model is not None
        assert whole.model.manifest == model.model.manifest

        await until(lambda: ended(tmp_path, first, third))
        for other in (first, third):
            assert await told(home, "east", walked(other, "general")) is ReportReply.STALE


async def test_a_home_that_was_restarted_ends_the_others_too(tmp_path: Path) -> None:
    async with living(tmp_path) as (home, _):
        first, second, third = await submitted(home, tmp_path)
    ours = AgentStore(tmp_path / "ours")
    ours.put(walked(second, "general", skill=0.95))
    async with living(tmp_path) as (home, _):
        await until(lambda: ended(tmp_path, first, third))
        assert (await shown(home, first.job)).state == "reached"
        assert await told(home, "east", walked(third, "general")) is ReportReply.STALE


async def test_a_model_that_the_disk_lost_loses_no_other(tmp_path: Path) -> None:
    async with living(tmp_path) as (home, _):
        first, second, _ = await submitted(home, tmp_path)
        await told(home, "east", walked(second, "general"))
    (tmp_path / "ours" / f"{first.job}.msgpack").write_bytes(b"lost")
    async with living(tmp_path) as (home, _):
        whole = await shown(home, first.job)
        assert whole.examples == 100
        assert await told(home, "east", walked(second, "general", "general")) is ReportReply.YES
        await home.handlers()["cancel"]("", encode(JobQuery(job=first.job)))
        assert (await shown(home, first.job)).state == "cancelled"


async def test_one_that_has_ended_without_the_targets_ends_no_other(tmp_path: Path) -> None:
    async with living(tmp_path) as (home, _):
        first, second, third = await submitted(home, tmp_path)
        ended = with_facts(walked(first, "general"), CancelRequested())
        await home.serve(asked(PacketKind.MODEL, ended), WANT)
        whole = await shown(home, first.job)
        assert not whole.state.final
        assert "2 of 3 travel" in whole.detail
        assert await told(home, "east", walked(second, "general")) is ReportReply.YES
        for other in (second, third):
            await home.serve(asked(PacketKind.MODEL, with_facts(other, CancelRequested())), WANT)
        assert (await shown(home, first.job)).state == "cancelled"


async def test_what_cannot_be_averaged_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def needs(question: RecipeQuestion) -> WorkNeeds:
        return NEEDS

    monkeypatch.setattr(test_agents, "needs", needs)
    async with living(tmp_path) as (home, _):
        with pytest.raises(InvalidInput) as refused:
            await home.handlers()["submit"]("", encode(SubmitIntent(intent=GOSSIP, insist=True)))
        assert refused.value.field == "training.algorithm"
        poor = msgspec.structs.replace(GOSSIP, budget=Budget(examples=WALKERS - 1))
        with pytest.raises(InvalidInput) as refused:
            await home.handlers()["submit"]("", encode(SubmitIntent(intent=poor, insist=True)))
        assert refused.value.field == "budget.examples"
        assert AgentStore(tmp_path / "ours").all() == ()


def walker_under_way(number: int) -> Agent:
    """One whose fresh model was measured."""
    world = Walker(number, {})
    while not (world.job.checkpoints and world.job.state is JobState.PLANNING):
        assert world.step()
    return world.agent()


async def test_two_models_of_a_job_do_not_learn_at_one_site_at_once(tmp_path: Path) -> None:
    async with host(tmp_path, CLINIC) as (here, store):
        await here.serve(*arrived(walker_under_way(0), "medicine"))
        with pytest.raises(NotServed, match="another model of its job"):
            await here.serve(*arrived(walker_under_way(1), "medicine"))
        assert [one.walker for one in store.all()] == [0]


async def test_one_that_waits_at_a_site_shuts_nobody_out(tmp_path: Path) -> None:
    async with host(tmp_path, CLINIC) as (here, store):
        waits = walker_under_way(0)
        event = Planned(route=None, decision=DECISION, waiting_for="until cdc is back")
        store.put(with_facts(waits, event))
        assert Itinerary.of(store.all()[0]).job.state is JobState.WAITING
        await here.serve(*arrived(walker_under_way(1), "medicine"))
        assert sorted(one.walker for one in store.all()) == [0, 1]


async def test_a_job_that_the_disk_cannot_take_whole_is_not_there_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = AgentStore.put

    def full(self: AgentStore, agent: Agent) -> None:
        if agent.walker == 1:
            raise StorageFull("the disk is full", field="state", fix="make room")
        put(self, agent)

    async with living(tmp_path) as (home, _):
        wanted = encode(SubmitIntent(intent=GOSSIP, insist=True))
        with monkeypatch.context() as patched:
            patched.setattr(AgentStore, "put", full)
            with pytest.raises(StorageFull):
                await home.handlers()["submit"]("", wanted)
        assert AgentStore(tmp_path / "ours").all() == ()
        assert len(await submitted(home, tmp_path)) == WALKERS


@pytest.mark.parametrize("algorithm", [Algorithm.EWC, Algorithm.GOSSIP])
async def test_what_the_recipe_does_not_train_by_is_refused_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: Algorithm
) -> None:
    async def needs(question: RecipeQuestion) -> WorkNeeds:
        return msgspec.structs.replace(MERGES, algorithms=(Algorithm.AUTO, Algorithm.SEQUENTIAL))

    monkeypatch.setattr(test_agents, "needs", needs)
    intent = msgspec.structs.replace(GOSSIP, training=Training(algorithm=algorithm))
    async with living(tmp_path) as (home, _):
        with pytest.raises(InvalidInput, match=f"does not train by {algorithm}") as refused:
            await home.handlers()["submit"]("", encode(SubmitIntent(intent=intent, insist=True)))
        assert refused.value.field == "training.algorithm"


async def test_a_site_has_what_one_left_met_by_the_next(tmp_path: Path) -> None:
    """Also after it was started again; what it has lost is met by nobody."""
    there = Walker(0, {})
    there.visit("general")
    there.leave()
    kept = msgspec.structs.replace(there.left["general"], at_s=clock.now_s())
    LeftModels(tmp_path / "left").put(kept)
    again = LeftModels(tmp_path / "left")
    async with host(tmp_path, CLINIC, left=again) as (here, store):
        assert kept.model.manifest in here.models(), "the weights are kept"
        await here.serve(*arrived(walker_under_way(1), "medicine"))
        (agent,) = store.all()
        planned = agent.facts[-1].event
        assert isinstance(planned, Planned)
        assert planned.meets == kept
        (tmp_path / "left" / f"{kept.job}.msgpack").write_bytes(b"lost")
        await here.close()
        store.drop(agent)
        await here.serve(*arrived(walker_under_way(2), "medicine"))
        (agent,) = store.all()
        planned = agent.facts[-1].event
        assert isinstance(planned, Planned)
        assert planned.meets is None


def left_of(job: str, at_s: float, size_bytes: int = 1) -> LeftModel:
    there = Walker(0, {})
    there.visit("general")
    there.leave()
    kept = there.left["general"]
    model = msgspec.structs.replace(
        kept.model, manifest=Digest(f"{job:0>64}"), size_bytes=size_bytes
    )
    return msgspec.structs.replace(kept, job=JobId(job), at_s=at_s, model=model)


def test_what_is_left_at_a_site_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MOST_LEFT", 3)
    monkeypatch.setattr(store_module, "MOST_LEFT_BYTES", 10)
    left = LeftModels(tmp_path)
    for number in range(5):
        left.put(left_of(f"job-{number}", number))
    assert [left.get(JobId(f"job-{number}")) is not None for number in range(5)] == [
        False, False, True, True, True,
    ]  # fmt: skip
    left.put(left_of("job-2", 5.0))
    assert len(left.models()) == 3, "one of each job"
    left.put(left_of("job-5", 6.0, size_bytes=9))
    assert left.models() == {Digest(f"{name:0>64}") for name in ("job-2", "job-5")}
    again = LeftModels(tmp_path)
    assert again.models() == left.models()
    again.forget_old(5.0 + store_module.LEFT_S)
    assert again.get(JobId("job-2")) is None
    assert again.get(JobId("job-5")) is not None


def test_the_facts_of_a_merge_that_a_site_lost_are_one_story() -> None:
    """A site dies while it merges: home goes on from what was measured, and not from the visit."""
    left: dict[str, LeftModel] = {}
    first, second = Walker(0, left), Walker(1, left)
    first.visit("general")
    first.leave()
    assert second.visit("general") is not None
    itinerary = Itinerary.of(second.agent())
    assert itinerary.job.state is JobState.MERGING
    itinerary.take(SiteLost(SiteId("general")), 2000.0)
    again = Itinerary.of(itinerary.agent)
    assert again.job.state is JobState.PLANNING
    assert not any(isinstance(entry.fact, Merge) for entry in again.job.lineage)
    assert again.job.spent_examples == 100, "it is spent"
    assert again.agent.home == HOME
    assert WorkState.DONE in {
        fact.event.outcome.state for fact in again.agent.facts if isinstance(fact.event, Reported)
    }


async def test_models_that_know_the_same_begin_at_different_sites() -> None:
    """As many as there are sites; more of them begin where there is room for them."""
    sites = [prospect(name, "medicine", examples=n) for name, n in SIZES.items()]

    async def first(walker: int) -> str:
        one = job(training=GOSSIP.training)
        one.walker = walker
        view = asked_where(one, *sites)[1]
        step = await Itinerary(walker_under_way(walker), one).decide_apart(view, NOW_S)
        assert step.route is not None
        return step.route.visits[0].site

    begun = [await first(walker) for walker in range(WALKERS)]
    assert begun[0] == max(SIZES, key=lambda name: SIZES[name])
    assert set(begun) == SIZES.keys()
    sites.pop()
    assert len({await first(walker) for walker in range(WALKERS)}) == len(sites)


async def test_one_that_has_learned_goes_where_it_gains_most() -> None:
    sites = [prospect(name, "medicine", examples=n) for name, n in SIZES.items()]
    one = job(training=GOSSIP.training)
    one.walker = 1
    visited(one, "ghr", "medicine", 0.5, 0.3)
    view = asked_where(one, *sites)[1]
    itinerary = Itinerary(walker_under_way(1), one)
    apart = await itinerary.decide_apart(view, NOW_S)
    assert apart.route == (await itinerary.decide(view, NOW_S)).route
