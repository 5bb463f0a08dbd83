"""A home and a host of travelling models, while several things happen at once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daitn.node.agents import home_requests
from daitn.node.agents.home import AgentHome
from daitn.node.agents.store import AgentStore
from daitn.objects.agents import AgentReport, ReportReply
from daitn.objects.errors import InvalidInput, Refused
from daitn.objects.identifiers import JobId, SiteId
from daitn.objects.intents import Training
from daitn.objects.jobs import JobState, JobView
from daitn.objects.merging import Algorithm
from daitn.objects.messages import RecipeQuestion
from daitn.objects.requests import AssessIntent, JobQuery, SubmitIntent
from daitn.objects.wire import decode, encode
from daitn.steering.wire.packet import PacketKind
from daitn.tools.fabric.memory import MemoryFabric
from tests.control.jobs.world import INTENT, NEEDS
from tests.control.test_next_site import node
from tests.node import test_agents
from tests.node.test_agents import WANT, asked, host, living, measured, planning
from tests.scenes.waiting import until

WALKS = msgspec.structs.replace(INTENT, training=Training(algorithm=Algorithm.GOSSIP, walkers=3))
MERGES = msgspec.structs.replace(NEEDS, merges=True, merges_fresh=True, algorithms=(*Algorithm,))


class Slow:
    """The next publication takes until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        publish = MemoryFabric.publish

        async def slowly(fabric: MemoryFabric, key: str, payload: bytes) -> None:
            if not self.begun.is_set():
                self.begun.set()
                await self.go_on.wait()
            await publish(fabric, key, payload)

        monkeypatch.setattr(MemoryFabric, "publish", slowly)


@pytest.fixture(autouse=True)
def _merging(monkeypatch: pytest.MonkeyPatch) -> None:
    async def needs(question: RecipeQuestion) -> object:
        return MERGES

    monkeypatch.setattr(test_agents, "needs", needs)


async def cancel(home: AgentHome, job: JobId) -> JobView:
    return decode(await home.handlers()["cancel"]("", encode(JobQuery(job=job))), JobView)


async def test_a_job_that_is_cancelled_while_it_is_sent_out_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with living(tmp_path) as (home, _):
        slow = Slow(monkeypatch)
        wanted = encode(SubmitIntent(intent=WALKS, insist=True))
        submitting = asyncio.ensure_future(home.handlers()["submit"]("", wanted))
        await slow.begun.wait()
        (job,) = {one.job for one in AgentStore(tmp_path / "ours").all()}
        assert (await cancel(home, job)).state is JobState.CANCELLED
        slow.go_on.set()
        assert decode(await submitting, JobView).state is JobState.CANCELLED
        agents = AgentStore(tmp_path / "ours").all()
        assert [one.epoch for one in agents] == [1, 1, 1]
        assert home._open == {}


async def test_a_cancel_keeps_what_was_reported_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused, or it is in what was cancelled."""
    async with living(tmp_path) as (home, _):
        wanted = encode(SubmitIntent(intent=WALKS, insist=True))
        job = decode(await home.handlers()["submit"]("", wanted), JobView).job
        store = AgentStore(tmp_path / "ours")
        started = store.get(job, 2)
        assert started is not None
        slow = Slow(monkeypatch)
        cancelling = asyncio.create_task(cancel(home, job))
        await slow.begun.wait()
        agent = measured(started, 1)
        facts = (started.facts[0], *agent.facts[1:])
        agent = msgspec.structs.replace(agent, walker=2, facts=facts)
        report = AgentReport(
            site=SiteId("east"), agent=agent, job=job, walker=2, epoch=0, facts=len(facts)
        )
        reply = decode(await home.serve(asked(PacketKind.QUERY, report), WANT), ReportReply)
        slow.go_on.set()
        await cancelling
        kept = store.get(job, 2)
        assert kept is not None
        assert reply is ReportReply.STALE or kept.facts[: len(facts)] == facts


async def test_a_model_that_is_stale_ends_no_later_one_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with host(tmp_path, node("clinic", "medicine")) as (here, _):
        heard, reply = asyncio.Event(), asyncio.Event()
        cleaned = asyncio.Event()
        went_on: list[int] = []

        async def report(home: SiteId, report: Any) -> ReportReply:
            if report.epoch:
                return ReportReply.YES
            heard.set()
            await reply.wait()
            return ReportReply.STALE

        async def step(itinerary: Any) -> bool:
            went_on.append(itinerary.agent.epoch)
            try:
                await asyncio.Event().wait()
            finally:
                if not itinerary.agent.epoch:
                    reply.set()
                    await cleaned.wait()
            return False

        monkeypatch.setattr(here, "_report", report)
        monkeypatch.setattr(here, "_step", step)
        agent = planning()
        here.send_out(agent)
        await heard.wait()
        here.send_out(msgspec.structs.replace(agent, epoch=1))
        await until(lambda: went_on == [0, 1])
        for _ in range(5):  # The answer comes while the first one still cleans up.
            await asyncio.sleep(0)
        cleaned.set()
        await asyncio.sleep(0.05)
        assert here._tasks.is_current(agent.name)


async def test_names_are_free_again_whatever_was_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with living(tmp_path) as (home, _):
        monkeypatch.setattr(home._agents, "site", SiteId("s" * 40))
        long = msgspec.structs.replace(WALKS, name="n" * 40)
        for _ in range(3):
            with pytest.raises(InvalidInput, match="name"):
                await home.handlers()["assess"]("", encode(AssessIntent(intent=long)))
        assert home._requests._naming == set()


async def test_an_owner_s_limit_holds_for_jobs_that_come_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home_requests, "OPEN_JOBS", 2)
    go_on = asyncio.Event()

    async def slowly(question: RecipeQuestion) -> object:
        await go_on.wait()
        return NEEDS

    async with living(tmp_path) as (home, _):
        monkeypatch.setattr(home._requests, "_needs", slowly)
        wanted = encode(SubmitIntent(intent=INTENT, insist=True))
        each = [asyncio.ensure_future(home.handlers()["submit"]("", wanted)) for _ in range(6)]
        await asyncio.sleep(0.05)
        go_on.set()
        ended = await asyncio.gather(*each, return_exceptions=True)
        assert sum(isinstance(one, Refused) for one in ended) == 4
        assert len({one.job for one in AgentStore(tmp_path / "ours").all()}) == 2
