"""Rounds: several sites train at once, one merges, and either may fail in the middle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.control.jobs.commands import Command, StartWork
from daitn.control.jobs.job import Outstanding
from daitn.control.jobs.machine import replay
from daitn.control.jobs.reports import mismatch
from daitn.control.jobs.view import view
from daitn.identity.signing import check_lineage, sign_entry
from daitn.objects.decisions import Round
from daitn.objects.errors import Corrupt
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.intents import Training
from daitn.objects.jobs import (
    JobEvent,
    JobState,
    Planned,
    Recovered,
    Reported,
    SiteLost,
    WorkStalled,
)
from daitn.objects.lineage import Lineage, Merge, Visit, descent
from daitn.objects.merging import CONSIDERED, RULES, Algorithm
from daitn.objects.messages import MergeWork, VisitWork

from .world import DECISION, INTENT, KEYS, World, failed, stop

SITES = ("general", "specialist", "third")


class RoundsWorld(World):
    """Three sites train in each round, and any of them may merge."""

    def __init__(self, algorithm: Algorithm = Algorithm.FEDAVG, most: int = 6) -> None:
        training = Training(algorithm=algorithm)
        self.algorithm = algorithm
        super().__init__(msgspec.structs.replace(INTENT, training=training))
        self.most = most
        self.sites: tuple[str, ...] = SITES

    def planned(self) -> Planned:
        latest = self.job.latest
        if latest is None:
            return super().planned()
        sites = [site for site in self.sites if site not in self.job.excluded]
        if self.job.rounds >= self.most or not sites:
            return Planned(route=None, decision=DECISION)
        planned = Round(
            start=latest.model.manifest,
            visits=tuple(stop(site) for site in sites),
            aggregators=tuple(SiteId(site) for site in reversed(sites)),
            algorithm=self.algorithm,
            rule=RULES[self.algorithm],
        )
        return Planned(route=None, round=planned, decision=DECISION)


class SwitchingWorld(RoundsWorld):
    """The network chooses: visits and rounds in the order of `ways`, then visits."""

    def __init__(self, ways: Sequence[Algorithm], most: int = 6) -> None:
        super().__init__(Algorithm.AUTO, most)
        self.ways = list(ways)

    def planned(self) -> Planned:
        if self.job.latest is None or len(self.job.checkpoints) > 2 * self.most:
            return World.planned(self)
        number = len(self.job.checkpoints) - 1
        self.algorithm = self.ways[number] if number < len(self.ways) else Algorithm.SEQUENTIAL
        return World.planned(self) if self.algorithm is Algorithm.SEQUENTIAL else super().planned()


def is_visit_at(site: str) -> Callable[[Command], bool]:
    def found(command: Command) -> bool:
        return (
            isinstance(command, StartWork)
            and isinstance(command.work, VisitWork)
            and command.work.model is not None
            and command.site == site
        )

    return found


def state_of(world: World) -> JobState:
    return world.job.state


def is_merge(command: Command) -> bool:
    return isinstance(command, StartWork) and isinstance(command.work, MergeWork)


def merges(world: World) -> list[Merge]:
    return [e.fact for e in world.job.lineage if isinstance(e.fact, Merge)]


def test_rounds_reach_the_targets_and_their_lineage_holds() -> None:
    world = RoundsWorld()
    world.run()
    job = world.job
    assert job.state is JobState.REACHED
    first, *_ = merges(world)
    assert first.site == "third"
    assert first.shares == (100, 100, 100)
    assert [made.round for made in job.made] == [1, 1, 1, 2, 2, 2][: len(job.made)]
    check_lineage(Lineage(job=job.id, entries=tuple(job.lineage)))
    best = job.best
    assert best is not None
    assert best.visits == tuple(range(len(job.made)))
    made_of = descent(job.lineage, best.model.manifest)
    assert len(made_of) == 1 + len(merges(world)) + len(job.made), "none of its makers is missing"
    shown = view(job, world.now_s)
    assert shown.algorithm == "fedavg"
    assert shown.examples == 100 * len(job.made)
    assert shown.bytes_moved == sum(visit.bytes_in for visit in shown.route) + 2 * 5


def test_a_merge_tells_where_each_of_its_models_comes_from() -> None:
    world = RoundsWorld()
    world.run()
    entries = tuple(world.job.lineage)
    merge = next(entry for entry in entries if isinstance(entry.fact, Merge))
    for kept in (merge.previous[:2], ()):
        hidden = sign_entry(merge.fact, kept, KEYS["general"])
        shortened = entries[: entries.index(merge)]
        with pytest.raises(Corrupt, match="tells where it comes from"):
            check_lineage(Lineage(job=world.job.id, entries=(*shortened, hidden)))


def test_a_round_goes_on_without_a_site_that_fails_or_leaves() -> None:
    world = RoundsWorld()
    begun = world.run_until(is_visit_at("general"))
    assert isinstance(begun, StartWork)
    world.feed(Reported(failed(begun, "WorkFailed")))
    lost = world.run_until(is_visit_at("third"))
    world.feed(SiteLost(SiteId("third")))
    assert lost not in world.started
    merge = world.run_until(lambda c: is_merge(c) or world.job.state is JobState.VERIFYING)
    assert world.job.candidate is not None, "one model that is left needs no merging"
    assert [one.visit.site for one in world.job.candidate.visits] == ["specialist"]
    world.pending.insert(0, merge)
    world.run()
    assert state_of(world) is JobState.REACHED
    assert {visit.site for visit in world.job.made if visit.round == 2} == set(SITES)


def test_rounds_reach_the_targets_without_a_site_that_lacks_a_package() -> None:
    world = RoundsWorld()
    begun = world.run_until(is_visit_at("third"))
    assert isinstance(begun, StartWork)
    world.feed(Reported(failed(begun, "NotFound", "packages")))
    world.run()
    assert world.job.excluded == ("third",)
    assert state_of(world) is JobState.REACHED


def test_another_site_merges_when_the_aggregator_dies() -> None:
    world = RoundsWorld()
    world.run_until(is_merge)
    world.feed(SiteLost(SiteId("third")))
    again = world.run_until(is_merge)
    assert isinstance(again, StartWork)
    assert again.site == "specialist"
    assert isinstance(again.work, MergeWork)
    assert len(again.work.trained) == 3
    world.feed(WorkStalled(site=again.site, visit=again.work.visit, silent_s=900.0))
    last = world.run_until(is_merge)
    assert isinstance(last, StartWork)
    world.feed(Reported(failed(last, "WorkFailed")))
    assert state_of(world) is JobState.PLANNING, "nobody is left to merge: the round is lost"
    world.run()
    assert state_of(world) is JobState.REACHED


def test_a_model_that_the_aggregator_complains_of_is_left_out() -> None:
    world = RoundsWorld()
    merge = world.run_until(is_merge)
    assert isinstance(merge, StartWork)
    world.feed(Reported(failed(merge, "Corrupt", "models[1]")))
    again = world.run_until(is_merge)
    assert isinstance(again, StartWork)
    assert isinstance(again.work, MergeWork)
    assert len(again.work.trained) == 2
    assert again.site == merge.site
    assert world.job.failures == {"specialist": 1}
    world.feed(Reported(world.done(again)))
    world.run()
    assert state_of(world) is JobState.REACHED


def test_too_few_models_for_a_robust_rule_lose_the_round_and_not_the_job() -> None:
    world = RoundsWorld(Algorithm.MEDIAN)
    begun = world.run_until(is_visit_at("general"))
    assert isinstance(begun, StartWork)
    world.feed(Reported(failed(begun, "WorkFailed")))
    world.run()
    first, *_ = merges(world)
    assert len(first.models) == 3, "two are not merged: either may lie"
    assert state_of(world) is JobState.REACHED


def test_many_sites_may_leave_one_round() -> None:
    """What is lost at once is one failure, as long as somebody is left."""
    world = RoundsWorld(most=1)
    world.sites = tuple(f"site{number}" for number in range(60))
    world.run_until(is_visit_at("site0"))
    for number in range(45):
        world.feed(SiteLost(SiteId(f"site{number}")))
    world.pending = [
        c
        for c in world.pending
        if not isinstance(c, StartWork) or c.work.visit in world.job.outstanding
    ]
    world.run()
    assert state_of(world) is JobState.EXHAUSTED
    assert len(merges(world)[0].models) == 15


@pytest.mark.parametrize("examples", [0, -5, 101])
def test_a_visit_of_no_or_of_more_examples_is_no_visit(examples: int) -> None:
    world = RoundsWorld()
    begun = world.run_until(is_visit_at("general"))
    assert isinstance(begun, StartWork)
    outcome = world.done(begun)
    assert outcome.entry is not None
    fact = msgspec.structs.replace(outcome.entry.fact, examples=examples)
    entry = msgspec.structs.replace(outcome.entry, fact=fact)
    world.feed(Reported(msgspec.structs.replace(outcome, entry=entry)))
    assert world.job.failures == {"general": 1}
    assert world.job.spent_examples == 0


@pytest.mark.parametrize(
    "change", [{"release_to": ("CH",)}, {"model_out": None}], ids=["stricter rules", "a free rider"]
)
def test_what_is_of_no_use_to_a_round_is_left_out_of_it(change: dict[str, Any]) -> None:
    world = RoundsWorld()
    begun = world.run_until(is_visit_at("general"))
    assert isinstance(begun, StartWork)
    assert isinstance(begun.work, VisitWork)
    assert begun.work.model is not None
    outcome = world.done(begun)
    assert outcome.entry is not None
    assert outcome.model is not None
    if "model_out" in change:
        change = {"model_out": begun.work.model.manifest}
        outcome = msgspec.structs.replace(outcome, model=begun.work.model)
    assert outcome.entry is not None
    fact = msgspec.structs.replace(outcome.entry.fact, **change)
    entry = msgspec.structs.replace(outcome.entry, fact=fact)
    world.feed(Reported(msgspec.structs.replace(outcome, entry=entry)))
    world.run()
    assert "general" in world.job.excluded
    assert len(merges(world)[0].models) == 2
    assert world.job.best is not None
    assert world.job.best.release_to == ("*",)


def test_the_outer_steps_memory_goes_from_merge_to_merge() -> None:
    world = RoundsWorld(Algorithm.FEDADAM)
    first = world.run_until(is_merge)
    assert isinstance(first, StartWork)
    assert isinstance(first.work, MergeWork)
    assert first.work.moments is None
    world.feed(Reported(world.done(first)))
    second = world.run_until(is_merge)
    assert isinstance(second, StartWork)
    assert isinstance(second.work, MergeWork)
    assert second.work.moments is not None
    assert second.work.moments.holders == ("third",)
    assert second.work.moments in world.job.between_rounds
    world.feed(Reported(world.done(second)))
    world.run()
    assert state_of(world) is JobState.REACHED
    assert not world.job.between_rounds


def test_an_outer_step_remembers_only_what_led_to_the_model() -> None:
    """After a visit, or a merge by another rule, its memory is about another model."""
    ways = [Algorithm.DILOCO, Algorithm.SEQUENTIAL, Algorithm.DILOCO, Algorithm.FEDAVG]
    world = SwitchingWorld([*ways, Algorithm.DILOCO, Algorithm.DILOCO], most=20)
    world.skill = {"broad": 0.0, "expert": -5.0}
    seen = []
    for _ in range(5):
        merge = world.run_until(is_merge)
        assert isinstance(merge, StartWork)
        assert isinstance(merge.work, MergeWork)
        seen.append((merge.work.rule.outer, merge.work.moments is not None))
        world.feed(Reported(world.done(merge)))
    none = [("momentum", False), ("momentum", False), ("plain", False), ("momentum", False)]
    assert seen == [*none, ("momentum", True)]
    job = world.job
    assert view(job, world.now_s).algorithm == (
        "diloco, then sequential, then diloco, then fedavg, then diloco"
    )
    check_lineage(Lineage(job=job.id, entries=tuple(job.lineage)))


def test_an_outer_step_begins_anew_where_its_memory_cannot_be_fetched() -> None:
    world = RoundsWorld(Algorithm.FEDADAM)
    first = world.run_until(is_merge)
    assert isinstance(first, StartWork)
    world.feed(Reported(world.done(first)))
    second = world.run_until(is_merge)
    assert isinstance(second, StartWork)
    world.feed(Reported(failed(second, "Unreachable", "moments")))
    again = world.run_until(is_merge)
    assert isinstance(again, StartWork)
    assert isinstance(again.work, MergeWork)
    assert again.work.moments is None
    assert len(again.work.trained) == 3
    assert not world.job.failures
    world.feed(Reported(world.done(again)))
    world.run()
    assert state_of(world) is JobState.REACHED


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"base": Digest("b" * 64)}, "other models"),
        ({"models": ()}, "other models"),
        ({"shares": (9, 1, 1)}, "another way"),
        ({"model_out": Digest("c" * 64)}, "not the one that its entry names"),
    ],
)
def test_a_report_of_another_merge_reaches_no_lineage(change: dict[str, object], says: str) -> None:
    world = RoundsWorld()
    merge = world.run_until(is_merge)
    assert isinstance(merge, StartWork)
    outcome = world.done(merge)
    assert outcome.entry is not None
    fact = msgspec.structs.replace(outcome.entry.fact, **change)
    entry = msgspec.structs.replace(outcome.entry, fact=fact)
    lie = msgspec.structs.replace(outcome, entry=entry)
    assert says in mismatch(Outstanding(merge.site, merge.work), lie)
    assert mismatch(Outstanding(merge.site, merge.work), outcome) == ""


FATES = st.lists(
    st.tuples(st.sampled_from(["done", "fails", "corrupt", "lost", "stalls"]), st.integers(0, 9)),
    max_size=60,
)


@given(FATES)
@settings(max_examples=150, deadline=None)
def test_whatever_fails_the_job_ends_and_nothing_counts_twice(
    fates: list[tuple[str, int]],
) -> None:
    _withstands(RoundsWorld(), fates)


@given(
    st.lists(st.sampled_from([Algorithm.SEQUENTIAL, *CONSIDERED]), max_size=8),
    FATES,
    st.integers(0, 60),
)
@settings(max_examples=150, deadline=None)
def test_a_job_may_change_its_algorithm_at_any_time(
    ways: list[Algorithm], fates: list[tuple[str, int]], crash: int
) -> None:
    world = SwitchingWorld(ways)
    _withstands(world, fates, crash)
    for entry in world.job.lineage:
        if isinstance(entry.fact, Merge):
            assert entry.fact.rule in [RULES[one] for one in CONSIDERED]
    assert not world.job.between_rounds or not world.job.state.final


def _withstands(world: RoundsWorld, fates: list[tuple[str, int]], crash: int | None = None) -> None:
    """Let works meet their fates, and the control centre crash once; then check the books."""
    for number, (fate, which) in enumerate(fates):
        if number == crash:
            world.pending.clear()
            world.feed(Recovered())
        if world.job.state.final or not world.pending:
            break
        works = [c for c in world.pending if isinstance(c, StartWork)]
        if fate == "done" or not works:
            world.step()
            continue
        work = works[which % len(works)]
        world.pending.remove(work)
        event: JobEvent
        match fate:
            case "fails":
                event = Reported(failed(work, "WorkFailed"))
            case "corrupt":
                event = Reported(failed(work, "Corrupt", f"models[{which}]"))
            case "lost":
                event = SiteLost(work.site)
            case _:
                event = WorkStalled(site=work.site, visit=work.work.visit, silent_s=1e3)
        world.feed(event)
        world.pending = [
            c
            for c in world.pending
            if not isinstance(c, StartWork) or c.work.visit in world.job.outstanding
        ]
    world.run()
    job = world.job
    assert job.state.final or job.state is JobState.WAITING
    check_lineage(Lineage(job=job.id, entries=tuple(job.lineage)))
    visits = [entry.fact.visit for entry in job.lineage]
    assert len(visits) == len(set(visits))
    assert len({(v.model, v.site) for v in job.made}) == len(job.made)
    assert job.spent_examples == sum(
        entry.fact.examples for entry in job.lineage if isinstance(entry.fact, Visit)
    )
    again = replay(world.facts)
    assert (again.state, again.made, again.lineage) == (job.state, job.made, job.lineage)
    assert again.outstanding == job.outstanding


def test_a_control_centre_that_restarts_goes_on_with_the_round() -> None:
    world = RoundsWorld()
    world.run_until(is_visit_at("specialist"))
    world.pending.clear()
    world.feed(Recovered())
    starts = [c for c in world.pending if isinstance(c, StartWork)]
    assert {c.site for c in starts} == {"specialist", "third"}
    world.run()
    assert state_of(world) is JobState.REACHED
