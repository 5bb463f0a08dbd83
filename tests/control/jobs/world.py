"""A small world in which a job lives: answers its commands, and fails as it is told."""

from __future__ import annotations

from collections.abc import Callable

from daitn.control.jobs.commands import (
    Assess,
    ChooseVerifiers,
    Command,
    ComputeRoute,
    Settle,
    StartWork,
    StopWork,
)
from daitn.control.jobs.job import Job, Outstanding
from daitn.control.jobs.machine import handle, submit
from daitn.control.jobs.reports import mismatch
from daitn.identity.keys import SigningKey
from daitn.identity.signing import sign_entry
from daitn.objects.decisions import Assessment, Decision, PlannedVisit, Route
from daitn.objects.errors import ErrorReport
from daitn.objects.identifiers import Digest, JobId, ObjectiveName, OwnerId, SiteId
from daitn.objects.intents import (
    Budget,
    DataWanted,
    ModelWanted,
    Objective,
    TrainingIntent,
)
from daitn.objects.jobs import (
    Assessed,
    JobEvent,
    Planned,
    Reported,
    Submitted,
    VerifierAssignment,
    VerifiersChosen,
    WorkNeeds,
)
from daitn.objects.lineage import LineageFact, Merge, Origin, Verification, Visit
from daitn.objects.messages import MergeWork, VerifyWork, VisitWork, Work, WorkOutcome, WorkState
from daitn.objects.models import ModelRef
from daitn.objects.orders import SignedOrder

INTENT = TrainingIntent(
    name="qa",
    owner=OwnerId("acme"),
    model=ModelWanted(recipe="classifier", seed=3),
    objectives=(
        Objective(name="broad", topic="medicine", at_least=0.8),
        Objective(name="expert", topic="medicine/neurology", at_least=0.9),
    ),
    data=DataWanted(topics=("medicine",)),
    budget=Budget(duration_s=1000.0),
)
NEEDS = WorkNeeds(
    data_schema="table/1",
    test_schema="table/1",
    parameters=10,
    flops_per_example=1.0,
    memory_bytes=1,
    size_bytes=1,
)
DECISION = Decision(
    policy="mtrce", chosen=None, ranking=(), rejections=(), snapshot_version=1, at_s=0.0
)
KEY = SigningKey.generate()
KEYS = {name: SigningKey.generate() for name in ("general", "specialist")}
"""Of data sites."""
VERIFIERS = {name: SigningKey.generate() for name in ("mpvu-broad", "mpvu-expert")}


def assessment(feasible: bool) -> Assessment:
    reasons = () if feasible else ("no data on the topic",)
    return Assessment(
        feasible=feasible, reasons=reasons, rejections=(), relaxations=(), snapshot_version=1
    )


class World:
    """Feeds a job with what a network would answer, and keeps every fact for a replay."""

    def __init__(
        self,
        intent: TrainingIntent = INTENT,
        start: ModelRef | None = None,
        job: str = "qa-1",
        order: SignedOrder | None = None,
        at_s: float = 100.0,
    ) -> None:
        self.order = order.digest if order else Digest("")
        self.now_s = at_s
        self.facts: list[tuple[JobEvent, float]] = []
        self.pending: list[Command] = []
        self.settled = 0
        self.stopped: list[StopWork] = []
        self.started: list[StartWork] = []
        self.skill = {"broad": 0.25, "expert": 0.25}
        self.routes: Callable[[Job], Route | None] = self.next_route
        event = Submitted(job=JobId(job), intent=intent, needs=NEEDS, start=start, order=order)
        self.facts.append((event, self.now_s))
        self.job, commands = submit(event, self.now_s)
        self.pending.extend(commands)

    def feed(self, event: JobEvent) -> None:
        self.now_s += 1.0
        self.facts.append((event, self.now_s))
        self.pending.extend(handle(self.job, event, self.now_s))

    def step(self) -> bool:
        """Carry one command out as a healthy network would; False when there is none."""
        if not self.pending:
            return False
        match self.pending.pop(0):
            case Assess():
                self.feed(Assessed(assessment(True)))
            case ComputeRoute():
                self.feed(self.planned())
            case ChooseVerifiers(objectives):
                self.feed(VerifiersChosen(tuple(self.verifier(o) for o in objectives)))
            case StartWork() as start:
                self.started.append(start)
                self.feed(Reported(self.done(start)))
            case StopWork() as stop:
                self.stopped.append(stop)
            case Settle():
                self.settled += 1
        return True

    def run(self) -> None:
        for _ in range(500):
            if not self.step():
                return
        raise AssertionError(f"the job does not come to rest: {list(self.job.history)}")

    def run_until(self, condition: Callable[[Command], bool]) -> Command:
        """Work on until the next command meets `condition`; it stays undone."""
        for _ in range(500):
            if self.pending and condition(self.pending[0]):
                return self.pending.pop(0)
            if not self.step():
                break
        raise AssertionError(f"that command never came: {self.job.history}")

    def visit_twice(self) -> None:
        """Until two visits are measured, and a third is under way."""
        for _ in range(2):
            start = self.run_until(is_training)
            assert isinstance(start, StartWork)
            self.feed(Reported(self.done(start)))
        self.run_until(is_training)

    def planned(self) -> Planned:
        return Planned(route=self.routes(self.job), decision=DECISION)

    def verifier(self, objective: ObjectiveName) -> VerifierAssignment:
        """The one verification unit of each objective, unless it cannot fetch the model."""
        site = SiteId(f"mpvu-{objective}")
        gone = self.job.candidate.asked_in_vain if self.job.candidate else ()
        return VerifierAssignment(objective=objective, site=None if site in gone else site)

    def next_route(self, job: Job) -> Route | None:
        """General and specialist in turn, three visits at most."""
        if len(job.made) >= 6:
            return None
        site = ("general", "specialist")[len(job.made) % 2]
        start = job.latest.model.manifest if job.latest else None
        return Route(start=start, visits=(stop(site),), reaches=True)

    def done(self, start: StartWork) -> WorkOutcome:
        fact = self.fact(start.site, start.work)
        key = {**KEYS, **VERIFIERS}.get(start.site, KEY)
        model = None
        if isinstance(fact, Origin):
            model = ModelRef(manifest=fact.model, size_bytes=1, holders=(start.site,))
        if isinstance(fact, Visit | Merge):
            model = ModelRef(manifest=fact.model_out, size_bytes=1, holders=(start.site,))
        return WorkOutcome(
            visit=start.work.visit,
            job=start.work.job,
            site=start.site,
            state=WorkState.DONE,
            entry=sign_entry(fact, start.work.previous, key),
            model=model,
        )

    def wrong(self, given: Outstanding, outcome: WorkOutcome) -> str:
        """How a report deviates from the work that was given."""
        return mismatch(given, outcome, self.now_s)

    def fact(self, site: SiteId, work: Work) -> LineageFact:
        if isinstance(work, VerifyWork):
            name = "broad" if work.topic == "medicine" else "expert"
            return Verification(
                job=work.job, visit=work.visit, site=site, at_s=self.now_s, seconds=1.0,
                transfer_s=0.1, bytes_in=5, model=work.model.manifest, topic=work.topic,
                metric=work.metric, value=max(0.0, self.skill[name]), items=100,
                standard_error=0.02,
            )  # fmt: skip
        if isinstance(work, MergeWork):
            return Merge(
                job=work.job, visit=work.visit, site=site, at_s=self.now_s, seconds=0.1,
                transfer_s=0.1, overhead_s=0.1, bytes_in=9, base=work.base.manifest,
                models=tuple(model.manifest for model in work.trained), shares=work.shares,
                rule=work.rule, starts=tuple(start.manifest for start in work.starts),
                behind=work.behind, part=work.part, model_out=Digest(f"{work.visit:0>64}"),
                size_bytes=1,
                moments=Digest("m" * 64) if work.rule.outer != "plain" else Digest(""),
                moments_bytes=2, order=self.order,
            )  # fmt: skip
        if work.model is None:
            return Origin(
                job=work.job, visit=work.visit, site=site, at_s=self.now_s,
                recipe=work.recipe, seed=work.seed, model=Digest(f"{work.visit:0>64}"),
                order=self.order,
            )  # fmt: skip
        learned = "broad" if site == "general" else "expert"
        self.skill[learned] = min(1.0, self.skill[learned] + 0.4)
        return Visit(
            job=work.job, visit=work.visit, site=site, dataset=work.dataset, at_s=self.now_s,
            seconds=2.0, transfer_s=0.1, overhead_s=0.01, bytes_in=7, examples=work.examples,
            loss=1.0, model_in=work.model.manifest, model_out=Digest(f"{work.visit:0>64}"),
            size_bytes=1, order=self.order, stands_for=work.stands_for,
        )  # fmt: skip


def stop(site: str, examples: int = 100) -> PlannedVisit:
    return PlannedVisit(
        site=SiteId(site), dataset="qa", examples=examples, expected_s=1.0,
        expected_cost_usd=0.5, expected={}, release_to=("*",),
    )  # fmt: skip


def failed(start: StartWork, code: str, field: str = "") -> WorkOutcome:
    return WorkOutcome(
        visit=start.work.visit,
        job=start.work.job,
        site=start.site,
        state=WorkState.FAILED,
        error=ErrorReport(code=code, problem="it broke", field=field),
    )


def all_verifiers_say(world: World, code: str, field: str = "") -> None:
    """The verifier of each objective fails at the model that is to be measured."""
    for _ in OBJECTIVES:
        start = world.run_until(is_verification)
        assert isinstance(start, StartWork)
        world.feed(Reported(failed(start, code, field)))


def model_of(start: StartWork) -> ModelRef | None:
    """The model that a visit or a measurement starts from."""
    assert not isinstance(start.work, MergeWork)
    return start.work.model


def is_training(command: Command) -> bool:
    return (
        isinstance(command, StartWork)
        and isinstance(command.work, VisitWork)
        and command.work.model is not None
    )


def is_verification(command: Command) -> bool:
    return isinstance(command, StartWork) and isinstance(command.work, VerifyWork)


OBJECTIVES = (ObjectiveName("broad"), ObjectiveName("expert"))
