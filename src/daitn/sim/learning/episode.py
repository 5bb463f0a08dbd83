"""One episode: a policy leads a model through a world until the job is over.

The job and its questions are the control centre's own code; only the sites, the links and the clock
are simulated.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from daitn.control.jobs.job import Job
from daitn.control.jobs.machine import handle, submit
from daitn.control.jobs.outstanding import asked_about, open_objectives
from daitn.control.jobs.question import route_question
from daitn.control.route.question import RouteQuestion, steps
from daitn.objects.access import allows
from daitn.objects.decisions import Assessment, Decision, PlannedVisit, Round, Route
from daitn.objects.descriptors import ANY
from daitn.objects.identifiers import JobId, SiteId
from daitn.objects.jobs import (
    Assessed,
    CancelRequested,
    DeadlinePassed,
    JobState,
    Planned,
    Submitted,
    VerifierAssignment,
    VerifiersChosen,
    Woke,
)
from daitn.sim.learning.measuring import exact
from daitn.sim.learning.policy import Experienced, RoutePolicy, VisitChosen
from daitn.sim.learning.topologies import Topologies
from daitn.sim.learning.work import Finished, Grounds, refused
from daitn.sim.learning.world import BEGIN_S, LearningWorld
from daitn.topology.snapshot import DataOption

__all__ = ["Episode", "EpisodeEnd", "VisitSeen", "run"]

_MOST_STEPS = 2_000
"""Limit on questions per episode: more means that a policy loops without spending time."""
_REFUSED_AFTER_S = 0.1


class EpisodeEnd:
    """Why an episode ended."""

    REACHED = "reached"
    GAVE_UP = "gave up"
    TIME = "time is over"
    USD = "money is over"
    EXAMPLES = "examples are over"
    STUCK = "went in circles"


@dataclass(frozen=True)
class VisitSeen:
    """A completed visit."""

    site: SiteId
    examples: int
    values: dict[str, float]
    """As measured after it."""


@dataclass(frozen=True)
class Episode:
    """The course and result of an episode."""

    policy: str
    family: str
    seed: int
    reached: bool
    seconds: float
    examples: int
    usd: float
    visits: int
    failed_visits: int
    why: str
    route: tuple[VisitSeen, ...]
    steps: tuple[str, ...] = ()
    """The algorithm of each measured visit or round."""
    decision_s: tuple[float, ...] = ()
    """Real seconds of each decision, if the caller supplies a timer."""
    short: float = 0.0
    """True total shortfall from the targets of the best model by measurements."""


def run(
    world: LearningWorld,
    policy: RoutePolicy,
    topologies: Topologies | None = None,
    timer: Callable[[], float] | None = None,
) -> Episode:
    """Run an episode under `policy`. The same world and policy give the same episode."""
    return _Run(world, policy, topologies or Topologies(world), timer).done()


class _Run:
    def __init__(
        self,
        world: LearningWorld,
        policy: RoutePolicy,
        topologies: Topologies,
        timer: Callable[[], float] | None,
    ) -> None:
        self._world, self._policy, self._topologies = world, policy, topologies
        self._timer = timer
        self._grounds = Grounds(world)
        self._now_s = BEGIN_S
        self._why = ""
        self._decision_s: list[float] = []
        self._failed = 0
        submitted = Submitted(
            job=JobId(f"{world.intent.name}-1"), intent=world.intent, needs=world.needs
        )
        self._job, _ = submit(submitted, self._now_s)

    def done(self) -> Episode:
        job = self._job
        handle(job, Assessed(_FEASIBLE), self._now_s)
        for _ in range(_MOST_STEPS):
            if job.state.final:
                break
            self._step()
        else:
            self._why = EpisodeEnd.STUCK
            handle(job, CancelRequested(), self._now_s)
        if isinstance(self._policy, Experienced):
            self._policy.finished(job, self._question())
        return self._episode()

    def _step(self) -> None:
        match self._job.state:
            case JobState.PLANNING:
                self._plan()
            case JobState.WAITING:
                self._wait()
            case JobState.PREPARING | JobState.VISITING | JobState.MERGING:
                self._work()
            case _:
                self._verify()

    def _work(self) -> None:
        """All current work of sites, at the same time."""
        job, given = self._job, tuple(self._job.outstanding.values())
        made = len(job.lineage)
        ends = [self._grounds.does(job, one, self._now_s) for one in given]
        for finished in sorted(ends, key=lambda end: end.at_s):
            self._take(finished)
        self._failed += len(given) - (len(job.lineage) - made)

    def _plan(self) -> None:
        question = self._question()
        rng = random.Random(f"{self._world.seed}.{self._job.works}")  # noqa: S311 - replayable
        began_s = self._timer() if self._timer else 0.0
        chosen = self._policy.next_visit(question, rng)
        if self._timer:
            self._decision_s.append(self._timer() - began_s)
        if chosen is None:
            waiting_for = "" if self._over() else _away(question, self._job)
            self._why = self._why or EpisodeEnd.GAVE_UP
            self._feed(Planned(route=None, decision=_decision(question), waiting_for=waiting_for))
            return
        if isinstance(chosen, Round):
            self._feed(Planned(route=None, round=chosen, decision=_decision(question)))
            return
        option = _option(question, chosen)
        usd = option.dataset.price_usd_per_1k * chosen.examples / 1000.0
        why = self._beyond(question, chosen.examples, usd)
        if why:
            self._why = why
            self._feed(Planned(route=None, decision=_decision(question)))
            return
        self._feed(Planned(route=_route(chosen, option, usd), decision=_decision(question)))
        if not self._admitted(question, chosen):
            (given,) = self._job.outstanding.values()
            self._take(Finished(self._now_s + _REFUSED_AFTER_S, refused(given, "not released")))

    def _verify(self) -> None:
        """Start all verifications at once, each at the first units the model may travel to."""
        job = self._job
        assert job.candidate is not None
        topology = self._topologies.at(self._now_s)
        assignments = []
        asked = {one: asked_about(job, one) for one in self._world.intent.objective_names()}
        for objective in open_objectives(job):
            units = [
                unit.site
                for unit in topology.verifiers.get(objective, ())
                if unit.site not in asked[objective] | job.barred
                and allows(
                    job.candidate.release_to,
                    topology.snapshot.sites[unit.site].descriptor.jurisdiction,
                )
            ]
            site = min(units, default=None)
            asked[objective] |= {site} if site is not None else set()
            assignments.append(VerifierAssignment(objective=objective, site=site))
        self._feed(VerifiersChosen(tuple(assignments)))
        if job.state is not JobState.VERIFYING:
            return
        ends = {
            visit: self._grounds.does(job, given, self._now_s)
            for visit, given in job.outstanding.items()
        }
        for visit, finished in sorted(ends.items(), key=lambda end: end[1].at_s):
            if visit in job.outstanding:  # Others agree already, else.
                self._take(finished)

    def _wait(self) -> None:
        times = [self._job.wake_at_s, self._topologies.next_change_s(self._now_s)]
        self._why = ""
        self._take(Finished(min(at_s for at_s in times if at_s is not None), Woke()))

    def _take(self, finished: Finished) -> None:
        """Advance the time to this event, or to the deadline if that is earlier."""
        if self._job.state.final:
            return
        deadline_s = self._job.deadline_at_s
        if deadline_s is not None and finished.at_s > deadline_s:
            self._now_s = deadline_s
            self._why = EpisodeEnd.TIME
            handle(self._job, DeadlinePassed(), deadline_s)
            return
        self._now_s = finished.at_s
        handle(self._job, finished.event, self._now_s)

    def _feed(self, event: Planned | VerifiersChosen) -> None:
        handle(self._job, event, self._now_s)

    def _question(self) -> RouteQuestion:
        return route_question(self._job, self._topologies.at(self._now_s), self._now_s)

    def _over(self) -> bool:
        deadline_s = self._job.deadline_at_s
        return deadline_s is not None and self._now_s >= deadline_s

    def _beyond(self, question: RouteQuestion, examples: int, usd: float) -> str:
        budget, spent = question.intent.budget, question.spent
        if budget.examples is not None and spent.examples + examples > budget.examples:
            return EpisodeEnd.EXAMPLES
        if budget.cost_usd is not None and spent.cost_usd + usd > budget.cost_usd + 1e-9:
            return EpisodeEnd.USD
        return ""

    def _admitted(self, question: RouteQuestion, chosen: VisitChosen) -> bool:
        """Whether release rules let the model go there."""
        sites = question.topology.snapshot.sites
        start = next((c for c in question.checkpoints if c.model == chosen.start), None)
        release_to = start.release_to if start else (ANY,)
        return allows(release_to, sites[chosen.site].descriptor.jurisdiction)

    def _episode(self) -> Episode:
        job = self._job
        reached = job.state is JobState.REACHED
        return Episode(
            policy=self._policy.name,
            family=self._world.family,
            seed=self._world.seed,
            reached=reached,
            seconds=self._now_s - BEGIN_S,
            examples=job.spent_examples,
            usd=job.spent_usd,
            visits=len(job.made),
            failed_visits=self._failed,
            why=EpisodeEnd.REACHED if reached else (self._why or job.detail),
            route=tuple(VisitSeen(made.site, made.work, made.values) for made in job.made),
            steps=tuple(str(one.algorithm) for one in steps(self._question().history)),
            decision_s=tuple(self._decision_s),
            short=self._short(),
        )

    def _short(self) -> float:
        """True total shortfall from the targets of the best model by measurements."""
        if self._job.best is None:
            return sum(wanted.at_least for wanted in self._world.intent.objectives)
        true = self._grounds.true_values(self._job.best.model.manifest)
        values = exact(self._world.tests, true[None])[0]
        wanted = zip(self._world.intent.objectives, values, strict=True)
        return float(sum(max(0.0, one.at_least - value) for one, value in wanted))


_FEASIBLE = Assessment(feasible=True, reasons=(), rejections=(), relaxations=(), snapshot_version=0)


def _option(question: RouteQuestion, chosen: VisitChosen) -> DataOption:
    """Raises `StopIteration` for a data set that the question does not offer."""
    return next(
        option
        for option in question.topology.options
        if (option.site, option.dataset.name) == (chosen.site, chosen.dataset)
    )


def _route(chosen: VisitChosen, option: DataOption, usd: float) -> Route:
    visit = PlannedVisit(
        site=chosen.site,
        dataset=chosen.dataset,
        examples=chosen.examples,
        expected_s=0.0,
        expected_cost_usd=usd,
        expected={},
        release_to=option.dataset.policy.release_to,
    )
    return Route(start=chosen.start, visits=(visit,), reaches=False)


def _decision(question: RouteQuestion) -> Decision:
    return Decision(
        policy="episode",
        chosen=None,
        ranking=(),
        rejections=(),
        snapshot_version=question.snapshot_version,
        at_s=question.now_s,
    )


def _away(question: RouteQuestion, job: Job) -> str:
    """Disconnected sites that would be eligible: a job without a route waits for them."""
    reasons: dict[str, set[str]] = {}
    for rejection in question.topology.rejections:
        reasons.setdefault(rejection.candidate, set()).add(rejection.filter)
    away = [candidate for candidate, filters in reasons.items() if filters == {"alive"}]
    return f"sites that are away: {', '.join(sorted(away))}" if away else ""
