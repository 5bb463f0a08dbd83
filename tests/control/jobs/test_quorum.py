"""Several verifiers measure each objective: k of n must agree, and who does not is named."""

from __future__ import annotations

import math
import random

import msgspec
import pytest

from daitn.control.agreeing import agree, agreed
from daitn.control.jobs.commands import StartWork, StopWork
from daitn.control.jobs.job import Job
from daitn.control.jobs.machine import replay
from daitn.control.jobs.outstanding import asked_about
from daitn.control.jobs.view import view
from daitn.objects.decisions import Route
from daitn.objects.identifiers import Digest, JobId, ObjectiveName, SiteId, VisitId
from daitn.objects.intents import TrainingIntent
from daitn.objects.jobs import JobState, Reported, VerifierAssignment, Woke, WorkStalled
from daitn.objects.lineage import LineageFact, Verification
from daitn.objects.messages import VerifyWork, Work, WorkOutcome
from daitn.objects.quorum import LEAST_ITEMS, Quorum, comparable_items
from daitn.objects.wire import canonical, decode, encode

from .world import INTENT, World, failed, is_verification, stop

UNITS = ("a", "b", "c")


class Quorate(World):
    """Three verification units measure both objectives; some of them lie."""

    def __init__(
        self,
        lies: dict[str, float] | None = None,
        units: tuple[str, ...] = UNITS,
    ) -> None:
        super().__init__(msgspec.structs.replace(INTENT, verification=Quorum(quorum=2, of=3)))
        self.lies = lies or {}
        self.units = [SiteId(unit) for unit in units]

    def verifier(self, objective: ObjectiveName) -> VerifierAssignment:
        job = self.job
        free = [unit for unit in self.units if unit not in job.barred | self.chosen[objective]]
        site = free[0] if free else None
        if site is not None:
            self.chosen[objective].add(site)
        return VerifierAssignment(objective=objective, site=site)

    def step(self) -> bool:
        self.chosen = {
            name: set(asked_about(self.job, name)) for name in self.job.intent.objective_names()
        }
        return super().step()

    def fact(self, site: SiteId, work: Work) -> LineageFact:
        fact = super().fact(site, work)
        if isinstance(fact, Verification):
            value = min(1.0, max(0.0, fact.value + self.lies.get(site, 0.0)))
            return msgspec.structs.replace(fact, value=value)
        return fact


def measurement(site: str, value: float, items: int = 200) -> Verification:
    return Verification(
        job=JobId("qa-1"), visit=VisitId(f"qa-1.{site}"), site=SiteId(site), at_s=1.0, seconds=1.0,
        transfer_s=0.0, bytes_in=0, model=Digest("m"), topic="medicine", metric="accuracy",
        value=value, items=items, standard_error=0.0,
    )  # fmt: skip


def test_a_lie_of_one_verifier_neither_ends_nor_misleads_a_job() -> None:
    alone = World()
    alone.run()
    lied = Quorate({"a": 0.7})
    lied.run()
    assert lied.job.state is JobState.REACHED
    assert [made.values for made in lied.job.made] == [made.values for made in alone.job.made]
    assert {one.site for one in lied.job.disagreements} == {"a"}
    assert lied.job.barred == {"a"}
    last = [s.site for s in lied.started if isinstance(s.work, VerifyWork)][-2:]
    assert "a" not in last, "it is asked no more"


def test_who_measured_otherwise_is_named_with_what_counts() -> None:
    world = Quorate({"a": 0.7})
    world.run()
    first = view(world.job, world.now_s).disagreements[0]
    assert str(first) == "a measured broad as 0.950, where 2 others agree on 0.250"
    assert world.job.problems[SiteId("a")].startswith("a measured")


def test_a_job_goes_on_once_enough_agree_and_stops_the_rest() -> None:
    world = Quorate()
    world.run_until(is_verification)  # The first of three, of the first objective.
    held = world.pending.copy()
    assert sum(is_verification(command) for command in held) == 5
    world.run()
    assert world.stopped, "the third of three is not waited for"
    assert world.job.disagreements == []
    assert world.job.state is JobState.REACHED


def test_a_contradicting_measurement_after_the_quorum_agrees_is_no_disagreement() -> None:
    world = Quorate({"c": 0.7})
    world.run()
    assert world.job.state is JobState.REACHED
    assert world.job.disagreements == []


def test_a_job_waits_where_nobody_agrees_and_goes_on_with_a_new_verifier() -> None:
    world = Quorate({"a": 0.3, "b": 0.7})
    world.run()
    assert str(world.job.state) == "waiting"
    assert "no 2 verifiers agree" in world.job.detail
    assert "a: 0.550" in world.job.detail
    world.units.append(SiteId("d"))
    world.feed(Woke())
    world.run()
    assert world.job.state is JobState.REACHED
    assert {one.site for one in world.job.disagreements} == {"a", "b"}


def test_two_of_three_are_enough_where_two_are_connected() -> None:
    world = Quorate(units=("a", "b"))
    world.run()
    assert world.job.state is JobState.REACHED
    alone = Quorate(units=("a",))
    alone.run()
    assert alone.job.state is JobState.WAITING
    assert "fewer than 2 verifiers are connected for broad, expert" in alone.job.detail


def test_one_that_breaks_does_not_end_a_job_that_has_others() -> None:
    world = Quorate()
    for _ in range(2):
        start = world.run_until(
            lambda c: isinstance(c, StartWork) and is_verification(c) and c.site == "a"
        )
        assert isinstance(start, StartWork)
        world.feed(Reported(failed(start, "WorkFailed")))
    world.run()
    assert world.job.state is JobState.REACHED
    assert "a" in world.job.barred


def test_one_that_stalls_is_replaced() -> None:
    world = Quorate(units=("a", "b", "c", "d"))
    start = world.run_until(is_verification)
    assert isinstance(start, StartWork)
    world.feed(WorkStalled(site=start.site, visit=start.work.visit, silent_s=99.0))
    world.run()
    assert world.job.state is JobState.REACHED
    assert any(isinstance(stop, StopWork) and stop.site == start.site for stop in world.stopped)


@pytest.mark.parametrize("lies", [{}, {"a": 0.7}, {"b": -0.3}, {"a": 0.3, "b": 0.7}])
def test_a_replay_gives_the_same_job(lies: dict[str, float]) -> None:
    world = Quorate(lies)
    world.run()
    again = replay(world.facts)
    assert view(again, world.now_s) == view(world.job, world.now_s)
    assert again.outstanding == world.job.outstanding


def test_every_measurement_is_in_the_ledger() -> None:
    world = Quorate({"a": 0.7})
    world.run()
    measured = [entry for entry in world.job.lineage if isinstance(entry.fact, Verification)]
    entered = [one for one in world.job.entries if one.cause.startswith("measurement/")]
    assert len(entered) == len(measured) > 2 * len(world.job.checkpoints)


def test_one_verifier_decides_where_the_intent_says_nothing() -> None:
    """And the intent is the same bytes as before, which its owner signed."""
    assert b"verification" not in canonical(INTENT)
    stated = msgspec.structs.replace(INTENT, verification=Quorum(quorum=2, of=3))
    assert decode(encode(stated), TrainingIntent) == stated


@pytest.mark.parametrize(("quorum", "of"), [(3, 2), (1, 2), (2, 4)])
def test_a_quorum_is_a_majority(quorum: int, of: int) -> None:
    with pytest.raises(ValueError, match="quorum"):
        Quorum(quorum=quorum, of=of)


def test_honest_verifiers_agree_as_often_as_they_say() -> None:
    """Against draws of test sets: at most one of a thousand pairs disagrees, rounding included."""
    rng = random.Random(1)
    apart = 0
    for _ in range(4000):
        true, items = rng.uniform(0.05, 0.99), rng.choice((60, 200, 800))
        values = [sum(rng.random() < true for _ in range(items)) for _ in range(2)]
        one, other = (
            measurement(name, math.floor(value / 5) * 5 / items, items)
            for name, value in zip("ab", values, strict=True)
        )
        apart += not agree(one, other)
    assert apart <= 4


def test_what_counts_lies_among_the_honest() -> None:
    """Whatever one of three says, unless it is within sampling error of them."""
    rng = random.Random(2)
    for _ in range(500):
        true = rng.uniform(0.3, 0.9)
        honest = [measurement(n, min(1.0, max(0.0, rng.gauss(true, 0.03)))) for n in "ab"]
        if not agree(*honest):
            continue
        found = agreed([*honest, measurement("c", rng.random())])
        low, high = sorted(fact.value for fact in honest)
        near = 3.29 * math.sqrt(0.5 / 200) + 0.03
        assert low - near <= found.fact.value <= high + near
        assert len(found.agreeing) >= 2


@pytest.mark.parametrize("items", [0, 1, 5, 100, 10**12])
@pytest.mark.parametrize("lie", [0.0, 0.95, 1.0])
def test_no_number_of_items_makes_a_lie_agree(lie: float, items: int) -> None:
    assert not agree(measurement("a", 0.6), measurement("b", lie, items))


def test_a_large_number_of_items_leaves_an_honest_neighbour_as_much_room() -> None:
    """Else who lies slightly, and states very many, has honest ones accused."""
    for value in (0.5, 0.65, 0.68):
        one = measurement("a", 0.55)
        alike = agree(one, measurement("b", value))
        assert agree(one, measurement("b", value, 10**9)) >= alike


class Few(Quorate):
    """One of the three states few items, and any value."""

    def fact(self, site: SiteId, work: Work) -> LineageFact:
        fact = super().fact(site, work)
        if isinstance(fact, Verification) and site == "a":
            return msgspec.structs.replace(fact, value=1.0, items=1)
        return fact


def test_a_verifier_with_few_items_ends_no_job() -> None:
    alone = World()
    alone.run()
    world = Few()
    world.run()
    assert len(world.job.made) == len(alone.job.made)
    assert {one.site for one in world.job.disagreements} == {"a"}


def balanced(rng: random.Random, prior: dict[str, int]) -> Verification:
    """What an honest verifier with these items per label measures, at a skill of 0.9 and 0.5."""
    right = [sum(rng.random() < skill for _ in range(n)) / n for n, skill in zip(
        prior.values(), (0.9, 0.5), strict=True)]  # fmt: skip
    fact = measurement("a", sum(right) / len(right), sum(prior.values()))
    return msgspec.structs.replace(fact, metric="balanced_accuracy")


def test_labels_rounded_for_publication_hide_none() -> None:
    """Breast cancer: 357 and 212 of 569."""
    assert comparable_items("balanced_accuracy", 569, {"b": 355, "m": 210}) >= LEAST_ITEMS


@pytest.mark.parametrize("prior", [{"a": 100, "b": 100}, {"a": 760, "b": 40}, {"a": 150, "b": 60}])
def test_honest_verifiers_agree_on_balanced_accuracy(prior: dict[str, int]) -> None:
    """As rarely apart as promised, wherever a quorum compares them."""
    assert comparable_items("balanced_accuracy", sum(prior.values()), prior) >= LEAST_ITEMS
    rng = random.Random(1)
    apart = sum(not agree(balanced(rng, prior), balanced(rng, prior)) for _ in range(3000))
    assert apart <= 9


@pytest.mark.parametrize(
    ("metric", "items", "labels"),
    [
        ("accuracy", 99, {"a": 99}),
        ("rmse", 1000, {"a": 1000}),
        ("balanced_accuracy", 200, {"a": 190}),  # Ten of a rare label are not shown.
        ("balanced_accuracy", 200, {"a": 180, "b": 20}),
    ],
)
def test_what_cannot_be_compared_counts_as_too_few(
    metric: str, items: int, labels: dict[str, int]
) -> None:
    assert comparable_items(metric, items, labels) < LEAST_ITEMS


class Claiming(Quorate):
    """Verifiers say that they cannot measure: liars of every model, all of those of a liar. As in a
    network, others are asked, those with the fewest failures first."""

    def __init__(
        self, quorum: int, of: int, units: str, *, liars: str = "", spoiler: str = "", says: str
    ) -> None:
        super().__init__(units=tuple(units))
        wanted = Quorum(quorum=quorum, of=of) if of > 1 else msgspec.UNSET
        World.__init__(self, msgspec.structs.replace(INTENT, verification=wanted))
        self.liars, self.spoiler, self.says = liars, spoiler, says
        self.routes = in_turn

    def verifier(self, objective: ObjectiveName) -> VerifierAssignment:
        job, quorum = self.job, self.job.intent.quorum.of > 1
        gone = set(job.candidate.asked_in_vain) if job.candidate else set()
        gone |= {*job.barred, *self.chosen[objective]} if quorum else set()
        free = [unit for unit in self.units if unit not in gone]
        site = min(free, key=lambda unit: job.verifier_failures.get(unit, 0), default=None)
        if site is not None:
            self.chosen[objective].add(site)
        return VerifierAssignment(objective=objective, site=site)

    def done(self, start: StartWork) -> WorkOutcome:
        candidate, (code, _, field) = self.job.candidate, self.says.partition(" ")
        if isinstance(start.work, VerifyWork) and candidate is not None:
            spoiled = bool(candidate.visits) and candidate.made_at == self.spoiler
            if start.site in self.liars or spoiled:
                return failed(start, code, field)
        return super().done(start)

    def run(self) -> None:
        """Until it has ended, or has waited in vain a few times."""
        super().run()
        for _ in range(6):
            if self.job.state is JobState.WAITING:
                self.feed(Woke())
                super().run()


def in_turn(job: Job) -> Route | None:
    """Each of three sites in turn, if it is not left out."""
    free = [site for site in ("general", "specialist", "third") if site not in job.excluded]
    if not free or len(job.made) >= 12:
        return None
    start = job.latest.model.manifest if job.latest else None
    return Route(start=start, visits=(stop(free[len(job.made) % len(free)]),), reaches=True)


UNMEASURABLE = ["WorkFailed model", "Corrupt model.config", "InvalidInput model.size_bytes"]


@pytest.mark.parametrize("says", [*UNMEASURABLE, "Unreachable", "WorkFailed"])
@pytest.mark.parametrize(
    ("quorum", "of", "units"),
    [(1, 1, "a"), (1, 1, "ab"), (2, 2, "ab"), (2, 3, "abc"), (3, 5, "abcde")],
)
def test_a_model_that_nobody_can_measure_counts_against_who_made_it(
    quorum: int, of: int, units: str, says: str
) -> None:
    """And not against verifiers; the job goes on from the model before."""
    world = Claiming(quorum, of, units, spoiler="third", says=says)
    world.skill = {"broad": 0.0, "expert": -0.6}
    world.run()
    assert world.job.excluded == ("third",)
    assert not world.job.barred
    assert world.job.state is JobState.REACHED
    assert {visit.site for visit in world.job.made} == {"general", "specialist"}


@pytest.mark.parametrize("says", [*UNMEASURABLE, "Unreachable", "WorkFailed"])
@pytest.mark.parametrize(
    ("quorum", "of", "units"), [(1, 1, "ab"), (2, 2, "abc"), (2, 3, "abc"), (3, 5, "abcde")]
)
def test_who_cannot_measure_what_others_can_is_at_fault(
    quorum: int, of: int, units: str, says: str
) -> None:
    world = Claiming(quorum, of, units, liars="a", says=says)
    world.run()
    assert world.job.state is JobState.REACHED
    assert not world.job.failures, "no site is"
    assert set(world.job.verifier_failures) == {"a"}


@pytest.mark.parametrize("says", UNMEASURABLE)
def test_an_only_verifier_ends_no_job_by_what_it_says_of_fresh_models(says: str) -> None:
    world = Claiming(1, 1, "a", liars="a", says=says)
    World.run(world)
    assert str(world.job.state) == "waiting"
    assert "a could measure no model of general and specialist" in world.job.detail
    assert not world.job.failures
    world.units = [SiteId("a"), SiteId("b")]
    world.feed(Woke())
    world.run()
    assert str(world.job.state) == "reached"


@pytest.mark.parametrize("says", UNMEASURABLE)
def test_a_model_that_no_verifier_can_measure_whoever_makes_it_ends_a_job(says: str) -> None:
    world = Claiming(1, 1, "ab", liars="ab", says=says)
    world.run()
    assert world.job.state is JobState.FAILED


def test_what_one_verifier_states_of_its_errors_and_labels_does_not_count() -> None:
    def measured(site: str, error: float, labels: dict[str, float]) -> Verification:
        return Verification(
            job=JobId("qa-1"), visit=VisitId("qa-1.1"), site=SiteId(site), at_s=0.0, seconds=1.0,
            transfer_s=0.1, bytes_in=5, model=Digest("a" * 64), topic="medicine",
            metric="accuracy", value=0.8, items=1000, standard_error=error, by_label=labels,
        )  # fmt: skip

    found = agreed(
        [
            measured("a", 0.012, {"x": 0.7, "y": 0.9}),
            measured("b", 1e9, {"x": 0.0, "y": 0.0, "z": 1.0}),
            measured("c", 0.013, {"x": 0.8, "y": 0.9}),
        ]
    )
    assert found.fact.standard_error == 0.013
    assert found.fact.by_label == {"x": 0.7, "y": 0.9}


@pytest.mark.parametrize(("quorum", "of", "units"), [(2, 2, "ab"), (3, 3, "abc")])
def test_a_job_without_enough_other_verifiers_waits_and_names_who_fetches_nothing(
    quorum: int, of: int, units: str
) -> None:
    world = Claiming(quorum, of, units, liars="a", says="Unreachable")
    world.run()
    assert not world.job.failures
    assert world.job.state is JobState.WAITING
    assert "not asked again: a" in world.job.detail


def test_an_only_verifier_that_measures_nothing_is_told_before_all_sites_are_left_out() -> None:
    world = Claiming(1, 1, "a", says="Unreachable")
    world.visit_twice()
    world.liars = "a"
    (given,) = world.job.outstanding.values()
    world.pending.append(StartWork(given.site, given.work))
    World.run(world)
    assert str(world.job.state) == "waiting"
    assert "a could measure no model of general and third" in world.job.detail
    assert not world.job.failures
    world.liars = ""
    world.run()
    assert world.job.state is JobState.REACHED
