"""Commands become requests to sites, in their order, and what sites say of them comes back."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

import msgspec
import pytest

from daitn.center import executor as actions_module
from daitn.center.executor import JobExecutor, _assigned, _sites_away
from daitn.center.experience import Experience
from daitn.center.metrics import CenterMetrics
from daitn.control.jobs.commands import Assess, ChooseVerifiers, ComputeRoute, StartWork
from daitn.control.jobs.job import Job, ModelCandidate, Outstanding
from daitn.objects.descriptors import DataPolicy, NodeDescriptor
from daitn.objects.errors import ErrorReport
from daitn.objects.identifiers import Digest, JobId, ObjectiveName, OwnerId, SiteId, VisitId
from daitn.objects.intents import Budget, Preference
from daitn.objects.jobs import (
    Assessed,
    JobEvent,
    Planned,
    Reported,
    VerifierAssignment,
    VerifiersChosen,
)
from daitn.objects.messages import VisitWork, Work, WorkState, WorkStatus
from daitn.objects.models import ModelRef
from daitn.objects.quorum import Quorum
from daitn.objects.wire import decode, encode
from daitn.tools.fabric import keys
from daitn.tools.fabric.memory import MemoryNetwork
from daitn.tools.journal.memory import MemoryJournal
from daitn.topology.cuts import Cuts
from daitn.topology.snapshot import Drrt, MsDrrt
from tests.control.jobs.world import INTENT, NEEDS
from tests.scenes.waiting import until
from tests.topology import medicine

NETCO = SiteId("netco")


def job_of(name: JobId) -> Job:
    return Job(
        id=name, intent=INTENT, needs=NEEDS, start=None, insist=False, submitted_at_s=0.0
    )  # fmt: skip


def measurable(size_bytes: int = 1, holders: tuple[SiteId, ...] = ()) -> Job:
    """A job whose new model is to be measured."""
    job = Job(
        id=JobId("qa-1"), intent=medicine.intent(), needs=NEEDS, start=None, insist=False,
        submitted_at_s=0.0,
    )  # fmt: skip
    model = ModelRef(manifest=Digest("0" * 64), size_bytes=size_bytes, holders=holders)
    job.candidate = ModelCandidate(model=model, base=None, visits=(), release_to=("*",), parents=())
    return job


class Scene:
    """A control centre's actions, and a site that takes work."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.fed: list[JobEvent] = []
        self.told: list[tuple[VisitId, WorkStatus]] = []
        self.taken: list[VisitId] = []
        self.hangs = False
        fabric = self.network.open("center")
        self.executor = JobExecutor(
            fabric,
            snapshot=lambda: Drrt(version=1, at_s=0.0),
            not_back=tuple,
            feed=self.feed,
            on_status=self.hear,
            is_taken=lambda visit: visit in dict(self.told),
            settle=lambda job: None,
            experience=Experience(MemoryJournal()),
            metrics=CenterMetrics(),
        )

    def feed(self, job: JobId, event: JobEvent) -> None:
        self.fed.append(event)

    def hear(self, job: JobId, visit: VisitId, status: WorkStatus) -> None:
        self.told.append((visit, status))

    async def open_site(self, answer: bytes | None = None) -> None:
        """`answer`: instead of a status; the site answers sooner or later."""
        chance = random.Random(1)

        async def take(key: str, payload: bytes) -> bytes:
            work = decode(payload, Work)
            self.taken.append(work.visit)
            await asyncio.sleep(5.0 if self.hangs else chance.uniform(0.0, 0.01))
            status = WorkStatus(state=WorkState.RUNNING, ahead=len(self.taken) - 1)
            return answer if answer is not None else encode(status)

        await self.network.open(NETCO).serve(keys.site_do(NETCO, "work"), take)

    async def start(self, number: int, job: Job | None = None) -> None:
        """Hand in the first visit of the job of this number."""
        name = JobId(f"qa-{number}")
        job = job or job_of(name)
        work = VisitWork(
            visit=job.next_visit_id(), job=name, recipe="classifier", config={}, seed=0,
            owner="acme", dataset="qa", examples=0, model=None, previous=(),
        )  # fmt: skip
        job.outstanding[work.visit] = Outstanding(NETCO, work)
        await self.executor.carry_out(job, StartWork(NETCO, work))


async def test_what_is_handed_in_first_is_accepted_first() -> None:
    scene = Scene()
    await scene.open_site()
    await asyncio.gather(*(scene.start(number) for number in range(1, 9)))
    visits = [VisitId(f"qa-{number}.1") for number in range(1, 9)]
    assert scene.taken == visits
    assert [(visit, status.ahead) for visit, status in scene.told] == [
        (visit, ahead) for ahead, visit in enumerate(visits)
    ]
    assert not scene.fed


async def test_the_topology_is_cut_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    relevant_to = Cuts.relevant_to

    def noted(*asked: Any, **needs: Any) -> MsDrrt:
        threads.append(threading.current_thread())
        return relevant_to(*asked, **needs)

    monkeypatch.setattr(Cuts, "relevant_to", noted)
    scene = Scene()
    for command in (Assess(), ComputeRoute(), ChooseVerifiers(INTENT.objective_names())):
        await scene.executor.carry_out(job_of(JobId("qa-1")), command)
    assert [type(event) for event in scene.fed] == [Assessed, Planned, VerifiersChosen]
    await scene.executor.cut(INTENT, NEEDS)
    assert len(threads) >= 4
    assert threading.current_thread() not in threads


async def test_a_site_that_takes_no_work_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions_module, "START_TIMEOUT_S", 0.01)
    scene = Scene()
    await scene.start(1)
    (reported,) = scene.fed
    assert isinstance(reported, Reported)
    assert reported.outcome.state is WorkState.FAILED
    assert reported.outcome.error is not None
    assert reported.outcome.error.problem == "netco does not accept work"


async def test_work_that_a_site_has_taken_is_not_refused_by_its_death(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is sent again from time to time. What the site has done of it is not lost with the site: a
    refusal would begin another visit."""
    scene = Scene()
    await scene.open_site()
    await scene.start(1)
    monkeypatch.setattr(actions_module, "START_TIMEOUT_S", 0.01)
    await scene.network.kill(NETCO)
    await scene.start(1)
    assert not scene.fed
    await scene.start(2)
    assert [type(event) for event in scene.fed] == [Reported]


async def test_a_site_that_has_taken_work_and_answers_no_more_has_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its connection may last, so that nobody notices its loss."""
    scene = Scene()
    await scene.open_site()
    await scene.start(1)
    monkeypatch.setattr(actions_module, "START_TIMEOUT_S", 0.01)
    scene.network.cut("center", NETCO)
    await scene.start(1)
    assert not scene.fed, "nobody serves it any more"
    scene.network.mend("center", NETCO)
    scene.hangs = True
    await scene.start(1)
    assert [type(event) for event in scene.fed] == [Reported]


async def test_work_that_is_stopped_while_it_waits_for_its_turn_is_not_handed_in() -> None:
    scene = Scene()
    await scene.open_site()
    scene.hangs = True
    first = asyncio.create_task(scene.start(1))
    await until(lambda: scene.taken)
    job = job_of(JobId("qa-2"))
    second = asyncio.create_task(scene.start(2, job))
    await until(lambda: job.outstanding)
    job.outstanding.clear()
    first.cancel()
    await second
    assert scene.taken == [VisitId("qa-1.1")]


async def test_an_answer_that_is_no_status_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    await scene.open_site(answer=b"\xc1")
    await scene.start(1)
    assert not scene.fed
    assert not scene.told
    assert "the work status from netco cannot be read" in caplog.text


OPEN_TOMORROW = DataPolicy(recipes=("*",), hours=("Tue 00:00-24:00",))


@pytest.mark.parametrize(
    ("lost", "policy", "words"),
    [
        ((), OPEN_TOMORROW, "sites outside of their hours: a"),
        (("a",), DataPolicy(recipes=("*",)), "sites that are away: a"),
        (("a",), OPEN_TOMORROW, "sites that are away: a"),
        ((), DataPolicy(recipes=("*",), owners=("friends",), hours=OPEN_TOMORROW.hours), ""),
    ],
)
def test_a_job_waits_for_sites_that_only_time_keeps_from_it(
    lost: tuple[str, ...], policy: DataPolicy, words: str
) -> None:
    data = medicine.data_site("a", medicine.dataset("a", "medicine", policy=policy))
    verifiers = medicine.nodes()[-2:]
    topology = medicine.cut(medicine.drrt([data, *verifiers], lost=lost), medicine.intent())
    job = Job(
        id=JobId("qa-1"), intent=medicine.intent(), needs=NEEDS, start=None, insist=False,
        submitted_at_s=0.0,
    )  # fmt: skip
    assert _sites_away(job, topology, ()) == words


def test_the_verifier_that_is_done_first_measures_a_model() -> None:
    units = [medicine.verifier_site(name, medicine.exam("medicine")) for name in ("far", "near")]
    data = medicine.data_site("a", medicine.dataset("a", "medicine"))
    links = [
        medicine.link("far", "a", throughput_bps=1e4),
        medicine.link("near", "a", throughput_bps=1e7),
    ]
    topology = medicine.cut(medicine.drrt([data, *units], links), medicine.intent())
    job = measurable(size_bytes=10_000_000, holders=(SiteId("a"),))
    job.verify_s = 10.0
    objective = ObjectiveName("broad")
    assert _assigned(job, topology, objective, (), medicine.NOW_S).site == "near"
    # A thousand seconds on the way are as long as a hundred measurements in the queue.
    busy = [VerifierAssignment(objective=ObjectiveName("other"), site=SiteId("near"))] * 200
    assert _assigned(job, topology, objective, busy, medicine.NOW_S).site == "far"


def priced_units(*prices: tuple[str, float]) -> list[NodeDescriptor]:
    units = []
    for name, price in prices:
        node = medicine.verifier_site(name, medicine.exam("medicine"))
        assert node.verifier is not None
        unit = msgspec.structs.replace(node.verifier, price_usd_per_hour=price)
        units.append(msgspec.structs.replace(node, verifier=unit))
    return units


def test_of_verifiers_that_are_done_alike_the_cheaper_measures() -> None:
    """And where cost counts more than time, the cheapest first of all. A site that only measures
    has a price too, which is paid."""
    data = medicine.data_site("a", medicine.dataset("a", "medicine"))
    units = priced_units(("dear", 9.0), ("fair", 2.0))
    even, objective = medicine.cut(medicine.drrt([data, *units]), medicine.intent()), "broad"
    chosen = _assigned(measurable(), even, ObjectiveName(objective), (), medicine.NOW_S)
    assert (chosen.site, chosen.price_usd_per_hour) == ("fair", 2.0)
    links = [
        medicine.link("fair", "a", throughput_bps=1e4),
        medicine.link("dear", "a", throughput_bps=1e7),
    ]
    topology = medicine.cut(medicine.drrt([data, *units], links), medicine.intent())
    for weight, site in ((1.0, "dear"), (2.0, "fair")):
        job = measurable(size_bytes=10_000_000, holders=(SiteId("a"),))
        preferences = (Preference(scorer="cost", weight=weight),)
        job.intent = msgspec.structs.replace(job.intent, preferences=preferences)
        assert _assigned(job, topology, ObjectiveName(objective), (), medicine.NOW_S).site == site


def test_who_pays_nothing_is_measured_by_those_who_ask_nothing() -> None:
    data = medicine.data_site("a", medicine.dataset("a", "medicine"))
    units = priced_units(("dear", 9.0), ("free", 0.0))
    for budget, sites in ((Budget(cost_usd=0.0), ["free"]), (Budget(), ["dear", "free"])):
        intent = msgspec.structs.replace(medicine.intent(), budget=budget)
        topology = medicine.cut(medicine.drrt([data, *units]), intent)
        assert list(topology.verifier_sites(ObjectiveName("broad"))) == sites
        told = [one.reason for one in topology.rejections if one.filter == "verifier-cost"]
        assert all("asks 9 USD for an hour, and budget.cost_usd is 0" in one for one in told)
        assert bool(told) == (len(sites) == 1)


def test_a_quorum_asks_verifiers_that_have_not_measured_the_model() -> None:
    topology = medicine.cut(medicine.drrt(medicine.nodes()), medicine.intent())
    job, objective = measurable(), ObjectiveName("broad")
    job.intent = msgspec.structs.replace(job.intent, verification=Quorum(quorum=2, of=3))
    first = _assigned(job, topology, objective, (), medicine.NOW_S)
    assert first.site == "board"
    again = _assigned(job, topology, objective, [first], medicine.NOW_S)
    assert again.site is None, "one verifier is not two"


def test_an_owner_has_one_voice_in_a_quorum() -> None:
    owners = {"a1": "ann", "a2": "ann", "b1": "bob", "c1": "cid"}
    units = [
        medicine.verifier_site(site, medicine.exam("medicine"), owner=OwnerId(owner))
        for site, owner in owners.items()
    ]
    sites = [node for node in medicine.nodes() if node.verifier is None]
    topology = medicine.cut(medicine.drrt([*sites, *units]), medicine.intent())
    job, objective = measurable(), ObjectiveName("broad")

    def asked(count: int) -> list[SiteId | None]:
        chosen: list[VerifierAssignment] = []
        for _ in range(count):
            chosen.append(_assigned(job, topology, objective, chosen, medicine.NOW_S))
        return [one.site for one in chosen]

    job.intent = msgspec.structs.replace(job.intent, verification=Quorum(quorum=2, of=3))
    assert asked(4) == ["a1", "b1", "c1", None]
    job.verifier_failures[SiteId("a1")] = 1
    assert asked(3) == ["a2", "b1", "c1"]
    job.intent = msgspec.structs.replace(job.intent, verification=None)
    assert asked(2) == ["a2", "b1"], "alone, any verifier decides"
    assert job.candidate is not None
    job.candidate.unable[SiteId("a2")] = ErrorReport(code="WorkFailed", problem="NaN")
    assert asked(1) == ["b1"], "that a model cannot be measured, another owner says"
    for site in ("b1", "c1"):
        job.candidate.unable[SiteId(site)] = ErrorReport(code="WorkFailed", problem="NaN")
    assert asked(1) == [None]


@pytest.mark.parametrize("says", ["that it refuses", "that it cannot fetch", "that none can"])
def test_a_verifier_that_cannot_measure_a_model_is_not_given_it_again_at_once(says: str) -> None:
    topology = medicine.cut(medicine.drrt(medicine.nodes()), medicine.intent())
    job = measurable()
    assert job.candidate is not None
    objective = ObjectiveName("broad")
    assert _assigned(job, topology, objective, (), medicine.NOW_S).site == "board"
    match says:
        case "that it refuses":
            job.candidate.refused.add(SiteId("board"))
        case "that it cannot fetch":
            job.candidate.unreached.add(SiteId("board"))
        case _:
            job.candidate.unable[SiteId("board")] = ErrorReport(code="Corrupt", problem="NaN")
    assert _assigned(job, topology, objective, (), medicine.NOW_S).site is None
