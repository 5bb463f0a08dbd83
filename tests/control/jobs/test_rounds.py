"""Rounds: several sites train at once, one merges, and either may fail in the middle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.control.jobs import rounds
from daitn.control.jobs.commands import Command, ComputeRoute, StartWork, StopWork
from daitn.control.jobs.failing import MOST_SETBACKS, note_problem
from daitn.control.jobs.job import MAX_FAILURES, Outstanding
from daitn.control.jobs.machine import replay
from daitn.control.jobs.question import route_question
from daitn.control.jobs.suspecting import distrust
from daitn.control.jobs.valuing import value_of
from daitn.control.jobs.view import view
from daitn.identity.signing import check_lineage, sign_entry
from daitn.objects.decisions import Group, Round
from daitn.objects.errors import Corrupt
from daitn.objects.identifiers import Digest, OwnerId, SiteId
from daitn.objects.intents import Training
from daitn.objects.jobs import (
    CancelRequested,
    JobEvent,
    JobState,
    Planned,
    Recovered,
    Reported,
    RoundDue,
    SiteLost,
    ValueAsked,
    WorkStalled,
)
from daitn.objects.lineage import Lineage, LineageFact, Merge, Visit, descent, left_by
from daitn.objects.merging import AT_ONCE, CONSIDERED, RULES, Algorithm, LocalRule, MergeRule
from daitn.objects.messages import MergeWork, VerifyWork, VisitWork, Work, WorkOutcome
from daitn.objects.wire import decode, encode

from ..route_world import healthcare, topology
from .world import (
    DECISION,
    INTENT,
    KEYS,
    World,
    all_verifiers_say,
    failed,
    is_training,
    model_of,
    stop,
)

SITES = ("general", "specialist", "third")
SOUTH = ("south1", "south2", "south3")


class RoundsWorld(World):
    """Three sites train in each round, and any of them may merge."""

    def __init__(
        self,
        algorithm: Algorithm = Algorithm.FEDAVG,
        most: int = 6,
        *,
        enough: int = 0,
        within_s: float | None = None,
    ) -> None:
        training = Training(algorithm=algorithm)
        self.chained = algorithm is Algorithm.FEDSEQ
        self.algorithm = algorithm
        super().__init__(msgspec.structs.replace(INTENT, training=training))
        self.most, self.enough, self.within_s = most, enough, within_s
        self.sites: tuple[str, ...] = SITES
        self.groups: tuple[tuple[str, ...], ...] = ()

    def planned(self) -> Planned:
        latest = self.job.latest
        if latest is None:
            return super().planned()
        sites = [site for site in self.sites if site not in self.job.excluded]
        if self.job.rounds >= self.most or not sites:
            return Planned(route=None, decision=DECISION)
        if self.chained and len(sites) > 1:
            first, second, *others = (stop(site) for site in sites)
            planned = Round(
                start=latest.model.manifest,
                visits=(first, *others),
                aggregators=tuple(SiteId(site) for site in reversed(sites)),
                then=((second,), *((),) * len(others)),
                algorithm=self.algorithm,
                rule=RULES[self.algorithm],
            )
            return Planned(route=None, round=planned, decision=DECISION)
        idle = [site for site in sites if f"{site}/qa" not in self.job.busy]
        groups = [[site for site in group if site in idle] for group in self.groups]
        planned = Round(
            start=latest.model.manifest,
            visits=tuple(stop(site) for site in idle),
            groups=tuple(
                Group(
                    visits=tuple(idle.index(site) for site in group),
                    aggregators=tuple(map(SiteId, group)),
                )
                for group in groups
                if len(group) > 1
            ),
            aggregators=tuple(SiteId(site) for site in reversed(sites)),
            enough=self.enough,
            within_s=self.within_s,
            algorithm=self.algorithm,
            rule=RULES[self.algorithm],
        )
        return Planned(route=None, round=planned, decision=DECISION)


class SwitchingWorld(RoundsWorld):
    """The network chooses: visits and rounds in the order of `ways`, then visits."""

    def __init__(self, ways: Sequence[Algorithm], most: int = 6) -> None:
        super().__init__(Algorithm.ADAPTIVE, most)
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
        with pytest.raises(Corrupt, match="origin no entry states"):
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
    again = next_merge(world)
    assert again.site == "specialist"
    assert isinstance(again.work, MergeWork)
    assert len(again.work.trained) == 3
    world.feed(WorkStalled(site=again.site, visit=again.work.visit, silent_s=900.0))
    last = next_merge(world)
    world.feed(Reported(failed(last, "WorkFailed")))
    assert state_of(world) is JobState.PLANNING, "nobody is left to merge: the round is lost"
    world.run()
    assert state_of(world) is JobState.REACHED


def test_a_model_that_the_aggregator_complains_of_is_left_out() -> None:
    world = RoundsWorld()
    merge = next_merge(world)
    world.feed(Reported(failed(merge, "Corrupt", "models[1]")))
    again = next_merge(world)
    assert isinstance(again.work, MergeWork)
    assert len(again.work.trained) == 2
    assert again.site == merge.site
    assert world.job.failures == {"specialist": 1}
    world.feed(Reported(failed(again, "Corrupt", "models[1]")))
    world.run()
    assert state_of(world) is JobState.REACHED
    told = view(world.job, 0.0).setbacks
    assert [one.site for one in told] == ["specialist", "third"], "although the job has reached"
    assert {one.reason for one in told} == {"it broke"}
    assert all(one.at_s > 0.0 for one in told)


def test_setbacks_are_counted_and_bounded() -> None:
    job = RoundsWorld().job
    for number in range(200):
        note_problem(job, SiteId("a"), "it broke" if number % 2 else f"{number} " + "x" * 9999)
    told = view(job, 0.0).setbacks
    assert len(told) == MOST_SETBACKS
    assert (told[-1].reason, told[-1].times) == ("it broke", 100)
    assert max(len(one.reason) for one in told) <= 500
    assert str(told[-1]) == "a: it broke (100 times)"


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
    assert world.job.failures == {"general": MAX_FAILURES if "release_to" in change else 1}
    assert len(merges(world)[0].models) == 2
    assert world.job.best is not None
    assert world.job.best.release_to == ("*",)


def test_the_outer_steps_memory_goes_from_merge_to_merge() -> None:
    world = RoundsWorld(Algorithm.FEDADAM)
    first = next_merge(world)
    assert isinstance(first.work, MergeWork)
    assert first.work.moments is None
    world.feed(Reported(world.done(first)))
    second = next_merge(world)
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
        merge = next_merge(world)
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
    first = next_merge(world)
    world.feed(Reported(world.done(first)))
    second = next_merge(world)
    world.feed(Reported(failed(second, "Unreachable", "moments")))
    again = next_merge(world)
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
    merge = next_merge(world)
    outcome = world.done(merge)
    assert outcome.entry is not None
    fact = msgspec.structs.replace(outcome.entry.fact, **change)
    entry = msgspec.structs.replace(outcome.entry, fact=fact)
    lie = msgspec.structs.replace(outcome, entry=entry)
    assert says in world.wrong(Outstanding(merge.site, merge.work), lie)
    assert world.wrong(Outstanding(merge.site, merge.work), outcome) == ""


def first_is_late(world: RoundsWorld) -> tuple[StartWork, StartWork]:
    """The first round is due while `third` trains: its visit, and the merge of the others."""
    late = world.run_until(is_visit_at("third"))
    assert isinstance(late, StartWork)
    world.feed(RoundDue())
    merge = next_merge(world)
    return late, merge


def test_a_chain_goes_from_site_to_site_and_its_last_model_is_merged() -> None:
    world = RoundsWorld(Algorithm.FEDSEQ)
    world.run_until(is_merge)
    visits = [s for s in world.started if isinstance(s.work, VisitWork) and s.work.model]
    made = {start.site: world.done(start) for start in visits}
    second = next(start for start in visits if start.site == "specialist")
    assert made[SiteId("general")].model is not None
    assert model_of(second) == made[SiteId("general")].model
    assert state_of(world) is JobState.MERGING
    assert world.job.round is not None
    assert [one.share for one in world.job.round.made] == [100, 200]
    world.pending.append(StartWork(*_only(world)))
    world.run()
    first, *_ = merges(world)
    assert first.shares == (100, 200)
    assert state_of(world) is JobState.REACHED
    assert [(v.site, v.round) for v in world.job.made][:3] == [
        ("third", 1), ("general", 1), ("specialist", 1)
    ]  # fmt: skip
    check_lineage(Lineage(job=world.job.id, entries=tuple(world.job.lineage)))


def _only(world: World) -> tuple[SiteId, Work]:
    (given_,) = world.job.outstanding.values()
    return given_.site, given_.work


@pytest.mark.parametrize("site", ["general", "specialist"])
@pytest.mark.parametrize("how", ["fails", "lost", "stalls", "elsewhere"])
def test_a_chain_goes_on_without_a_site(site: str, how: str) -> None:
    """From what the site was given, be that the checkpoint or what the one before it made."""
    world = RoundsWorld(Algorithm.FEDSEQ)
    begun = world.run_until(is_visit_at(site))
    assert isinstance(begun, StartWork)
    match how:
        case "fails":
            world.feed(Reported(failed(begun, "WorkFailed")))
        case "lost":
            world.feed(SiteLost(SiteId(site)))
        case "stalls":
            world.feed(WorkStalled(site=SiteId(site), visit=begun.work.visit, silent_s=900.0))
        case _:
            outcome = world.done(begun)
            assert outcome.entry is not None
            fact = msgspec.structs.replace(outcome.entry.fact, release_to=("XX",))
            entry = sign_entry(fact, outcome.entry.previous, KEYS["general"])
            world.feed(Reported(msgspec.structs.replace(outcome, entry=entry)))
    world.pending = [c for c in world.pending if not isinstance(c, StopWork)]
    world.run_until(is_merge)
    assert world.job.round is not None
    other = "specialist" if site == "general" else "general"
    assert [[c.visit.site for c in one.chain] for one in world.job.round.made] == [
        ["third"], [other]
    ]  # fmt: skip
    world.pending.append(StartWork(*_only(world)))
    world.run()
    assert state_of(world).final
    assert merges(world)[0].shares == (100, 100)


def owns(world: World) -> dict[str, VisitWork]:
    """The visits of the round in progress, by their sites."""
    under_way = world.job.outstanding.values()
    return {str(o.site): o.work for o in under_way if isinstance(o.work, VisitWork)}


def test_each_site_is_given_what_it_made_in_the_round_before() -> None:
    world = RoundsWorld(Algorithm.SCAFFOLD)
    world.skill = {"broad": -2.0, "expert": -2.0}
    world.run_until(lambda c: is_visit_at("general")(c) and world.job.rounds == 0)
    assert all(work.own is None and work.local.variates for work in owns(world).values())
    world.pending.insert(0, StartWork(SiteId("general"), owns(world)["general"]))
    world.run_until(lambda c: is_visit_at("general")(c) and world.job.rounds == 1)
    (merge,) = merges(world)
    made = {e.fact.site: e.fact.model_out for e in world.job.lineage if isinstance(e.fact, Visit)}
    for site, work in owns(world).items():
        assert work.own is not None
        assert work.own.manifest == made[SiteId(site)]
        assert work.own.holders == tuple(dict.fromkeys((SiteId(site), merge.site)))
    assert {ref.manifest for ref in world.job.between_rounds} >= set(made.values())


def test_a_site_that_lost_what_it_made_trains_without_it_and_goes_on_the_round_after() -> None:
    world = RoundsWorld(Algorithm.SCAFFOLD)
    world.skill = {"broad": -2.0, "expert": -2.0}
    begun = world.run_until(lambda c: is_visit_at("general")(c) and world.job.rounds == 1)
    assert isinstance(begun, StartWork)
    world.feed(Reported(failed(begun, "Unreachable", "own")))
    again = owns(world)["general"]
    assert again.own is None
    assert world.job.failures == {}
    repeated = StartWork(SiteId("general"), again)
    world.pending.remove(repeated)
    world.feed(Reported(failed(repeated, "Unreachable", "own")))
    assert world.job.failures == {SiteId("general"): 1}, "it was given nothing to lose"
    world.run()
    later = [s.work for s in world.started if isinstance(s.work, VisitWork) and s.work.own]
    assert {s.site for s in world.started if s.work in later} == set(SITES)
    assert world.job.state.final
    assert world.job.own == {}, "it goes when the job ends"


FATES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("done", "fails", "corrupt", "own", "lost", "stalls", "spoilt", "rule"),
                *("waits", "due", "late", "again"),
            ]
        ),
        st.integers(0, 9),
    ),
    max_size=60,
)


@given(
    st.sampled_from([Algorithm.FEDAVG, Algorithm.FEDSEQ, Algorithm.SCAFFOLD]),
    FATES,
    st.integers(0, 3),
    st.booleans(),
)
@settings(max_examples=250, deadline=None)
def test_whatever_fails_the_job_ends_and_nothing_counts_twice(
    algorithm: Algorithm, fates: list[tuple[str, int]], enough: int, in_groups: bool
) -> None:
    whole = algorithm in AT_ONCE
    world = RoundsWorld(algorithm, enough=0 if whole else enough, within_s=None if whole else 5.0)
    if in_groups and not whole:
        world.sites, world.groups = (*SITES, *SOUTH), (SITES[:2], SOUTH)
    _withstands(world, fates)


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


def test_an_algorithm_by_which_the_recipe_does_not_merge_is_chosen_once() -> None:
    """Boosted trees are united by shares alone. No site is to blame for it."""
    world = SwitchingWorld([Algorithm.TIES, Algorithm.FEDAVG], most=20)
    merge = next_merge(world)
    world.ways = [Algorithm.FEDAVG] * 9
    world.feed(Reported(failed(merge, "InvalidInput", "training.algorithm")))
    assert state_of(world) is JobState.PLANNING
    assert not world.job.outstanding
    asks = route_question(world.job, topology(healthcare()), world.now_s)
    assert asks.unfit == {Algorithm.TIES}
    world.run()
    assert state_of(world) is JobState.REACHED
    assert world.job.failures == {}
    assert replay(world.facts).unfit == world.job.unfit


def test_a_visit_of_a_route_does_not_go_on_with_what_a_round_began() -> None:
    """In a round, sites train in another way."""
    world = SwitchingWorld([Algorithm.FEDAVG])
    world.run_until(is_visit_at("general"))
    for site in SITES:
        world.feed(SiteLost(SiteId(site)))
    begun = world.job.interrupted[SiteId("general")]
    world.ways = []
    world.pending = still_wanted(world, world.pending)
    visit = world.run_until(is_visit_at("general"))
    assert isinstance(visit, StartWork)
    assert isinstance(visit.work, VisitWork)
    assert (begun.local, visit.work.local) == (LocalRule(merged=True), LocalRule())
    assert visit.work.visit != begun.visit


def _withstands(world: RoundsWorld, fates: list[tuple[str, int]], crash: int | None = None) -> None:
    """Let works meet their fates, and the control centre crash once; then check the books."""
    slow: list[Command] = []
    for number, (fate, which) in enumerate(fates):
        if number == crash:
            world.pending.clear()
            slow.clear()
            world.feed(Recovered())
        if world.job.state.final or not (world.pending or slow):
            break
        if fate == "due":
            if rounds.due_at_s(world.job) is not None:
                world.feed(RoundDue())
            continue
        if fate == "late":
            world.pending[:0], slow = slow, []
            continue
        if fate == "again":
            reports = [e for e, _ in world.facts if isinstance(e, Reported)]
            if reports:
                world.feed(reports[which % len(reports)])
            continue
        works = [c for c in world.pending if isinstance(c, StartWork)]
        if fate == "done" or not works:
            world.step()
            continue
        work = works[which % len(works)]
        world.pending.remove(work)
        if fate == "waits":
            slow.append(work)
            continue
        event: JobEvent
        match fate:
            case "fails":
                event = Reported(failed(work, "WorkFailed"))
            case "corrupt":
                event = Reported(failed(work, "Corrupt", f"models[{which}]"))
            case "spoilt":
                event = Reported(failed(work, "WorkFailed", "model"))
            case "rule":
                event = Reported(failed(work, "InvalidInput", "training.merging.rate"))
            case "own":
                event = Reported(failed(work, "Unreachable", "own"))
            case "lost":
                event = SiteLost(work.site)
            case _:
                event = WorkStalled(site=work.site, visit=work.work.visit, silent_s=1e3)
        world.feed(event)
        world.pending, slow = still_wanted(world, world.pending), still_wanted(world, slow)
    world.pending += still_wanted(world, slow)
    world.run()
    job = world.job
    assert job.state.final or job.state is JobState.WAITING
    assert not job.outstanding, "who is late is told to stop when the job ends"
    check_lineage(Lineage(job=job.id, entries=tuple(job.lineage)))
    visits = [entry.fact.visit for entry in job.lineage]
    assert len(visits) == len(set(visits))
    assert len({(v.model, v.site) for v in job.made}) == len(job.made)
    assert job.spent_examples == sum(
        entry.fact.examples for entry in job.lineage if isinstance(entry.fact, Visit)
    )
    for merge in merges(world):
        assert sum(merge.shares) == sum(learned(world, model) for model in merge.models)
    again = replay(world.facts)
    assert (again.state, again.made, again.lineage) == (job.state, job.made, job.lineage)
    assert again.outstanding == job.outstanding


def learned(world: World, model: Digest) -> int:
    """The examples that a merged model learned from in its round, at one site or several."""
    (made,) = (e.fact for e in world.job.lineage if left_by(e.fact) == model)
    if isinstance(made, Merge):
        return sum(made.shares)
    assert isinstance(made, Visit)
    checkpoints = {one.model.manifest for one in world.job.checkpoints}
    if made.model_in in checkpoints:
        return made.examples
    return made.examples + learned(world, made.model_in)


def still_wanted(world: World, commands: list[Command]) -> list[Command]:
    return [
        c for c in commands if not isinstance(c, StartWork) or c.work.visit in world.job.outstanding
    ]


def test_a_round_that_is_due_goes_on_and_the_late_model_joins_the_next_merge() -> None:
    world = RoundsWorld(within_s=5.0)
    late, merge = first_is_late(world)
    assert merge.site == "specialist", "who trains still does not merge"
    assert isinstance(merge.work, MergeWork)
    assert len(merge.work.trained) == 2
    assert not merge.work.starts
    world.feed(Reported(world.done(merge)))
    world.run_until(is_visit_at("general"))
    assert world.job.busy == {"third/qa"}, "it is asked for nothing else meanwhile"
    world.pending.clear()
    world.feed(Reported(world.done(late)))
    assert state_of(world) is JobState.VISITING, "the others are waited for"
    world.feed(Recovered())
    second = next_merge(world)
    assert isinstance(second.work, MergeWork)
    assert second.work.behind == (0, 0, 1)
    assert second.work.starts[2] != second.work.base == second.work.starts[0]
    assert second.work.starts[2] == model_of(late)
    assert second.work.starts[2] in world.job.between_rounds
    world.feed(Reported(world.done(late)))  # Twice.
    world.feed(Reported(world.done(second)))
    world.run()
    assert state_of(world) is JobState.REACHED
    assert [v.site for v in world.job.made if v.round == 2] == ["general", "specialist", "third"]
    check_lineage(Lineage(job=world.job.id, entries=tuple(world.job.lineage)))


def test_a_round_of_late_models_alone_is_a_step_of_the_models_descent() -> None:
    world = RoundsWorld(most=2, within_s=5.0)
    late, merge = first_is_late(world)
    world.sites = ("third",)
    world.feed(Reported(world.done(merge)))
    world.run()
    assert state_of(world) is JobState.VISITING, "it waits for the late one"
    world.skill = {"broad": 0.7, "expert": 0.7}
    world.feed(Reported(world.done(late)))
    world.run()
    assert [v.site for v in world.job.made if v.round == 2] == ["third"]
    value = value_of(world.job, lambda site: OwnerId(site))
    assert value.rounds == 2
    assert {credit.site for credit in value.credits} == set(SITES)
    for objective, gain in value.gain.items():
        assert sum(c.value[objective] for c in value.credits) == pytest.approx(gain)


def test_a_late_visit_is_stopped_when_the_job_ends_and_counts_for_nothing() -> None:
    world = RoundsWorld(within_s=5.0)
    late, merge = first_is_late(world)
    world.feed(Reported(world.done(merge)))
    world.feed(CancelRequested())
    world.run()
    assert StopWork(late.site, late.work.visit) in world.stopped
    spent = world.job.spent_examples
    world.feed(Reported(world.done(late)))
    assert world.job.spent_examples == spent


@pytest.mark.parametrize("end", ["fails", "lost", "stalls"])
def test_a_late_visit_that_ends_badly_leaves_the_job_as_it_is(end: str) -> None:
    world = RoundsWorld(within_s=5.0)
    late, merge = first_is_late(world)
    events: dict[str, JobEvent] = {
        "fails": Reported(failed(late, "WorkFailed")),
        "lost": SiteLost(late.site),
        "stalls": WorkStalled(site=late.site, visit=late.work.visit, silent_s=1e3),
    }
    world.feed(events[end])
    assert state_of(world) is JobState.MERGING
    assert not world.job.busy
    assert set(world.job.problems) == {"third"}
    world.feed(Reported(world.done(merge)))
    world.run()
    assert state_of(world) is JobState.REACHED
    assert {visit.site for visit in world.job.made if visit.round == 2} == set(SITES)


def test_many_late_visits_may_be_lost_while_their_rounds_model_is_measured() -> None:
    """What nobody waits for is no piece of work without progress."""
    world = RoundsWorld(most=2, within_s=5.0)
    world.sites = tuple(f"site{number}" for number in range(90))
    first = world.run_until(is_visit_at("site0"))
    assert isinstance(first, StartWork)
    world.feed(Reported(world.done(first)))
    for number in range(1, 45):
        begun = world.run_until(is_visit_at(f"site{number}"))
        assert isinstance(begun, StartWork)
        world.feed(Reported(world.done(begun)))
    world.pending.clear()
    world.feed(RoundDue())
    merge = next_merge(world)
    world.feed(Reported(world.done(merge)))
    for late in tuple(world.job.overdue.values()):
        world.feed(SiteLost(late.site))
    assert state_of(world) is JobState.VERIFYING
    assert len(world.job.losses) == 45
    world.run()
    assert world.job.rounds == 2


def test_rounds_that_an_earlier_version_planned_go_on() -> None:
    """Their events name no algorithm and no rule: both were the intent's."""
    world = RoundsWorld(Algorithm.FEDADAM)
    world.run_until(is_merge)
    earlier = [_as_before(event) for event, _ in world.facts]
    assert earlier != [event for event, _ in world.facts]
    again = replay(zip(earlier, (at_s for _, at_s in world.facts), strict=True))
    assert again.round == world.job.round
    assert again.outstanding == world.job.outstanding


def _as_before(event: JobEvent) -> JobEvent:
    plain = msgspec.to_builtins(event, builtin_types=(bytes,))
    if plain.get("round"):
        for name in ("algorithm", "rule", "groups", "enough", "within_s", "then"):
            del plain["round"][name]
    before: JobEvent = decode(encode(plain), JobEvent)
    return before


def test_a_buffer_merges_as_soon_as_it_has_enough_and_nobody_waits() -> None:
    world = RoundsWorld(Algorithm.FEDBUFF, enough=2)
    slow = world.run_until(is_visit_at("general"))
    assert isinstance(slow, StartWork)
    behind = []
    for number in range(3):
        merge = next_merge(world)
        assert isinstance(merge.work, MergeWork)
        assert world.job.busy == {"general/qa" if number < 2 else "third/qa"}
        behind.append(merge.work.behind)
        if number == 1:
            world.feed(Reported(world.done(slow)))
        world.skill = dict.fromkeys(world.skill, 0.5)
        world.feed(Reported(world.done(merge)))
    assert behind == [(), (), (0, 2)], "one of two others, and the slow one, are enough"
    world.run()
    check_lineage(Lineage(job=world.job.id, entries=tuple(world.job.lineage)))


def test_a_round_is_due_at_the_pace_of_those_that_have_reported() -> None:
    world = RoundsWorld(within_s=1000.0)
    first = world.run_until(is_visit_at("general"))
    assert isinstance(first, StartWork)
    began_at_s = world.now_s
    assert rounds.due_at_s(world.job) == began_at_s + 1000.0, "nobody has reported"
    world.now_s = began_at_s + 9.0
    world.feed(Reported(world.done(first)))
    second = world.run_until(is_visit_at("specialist"))
    assert isinstance(second, StartWork)
    world.feed(Reported(world.done(second)))
    due_at_s = rounds.due_at_s(world.job)
    assert due_at_s == began_at_s + 2.0 * 10.5, "twice the median: each is to take as long"
    assert replay(world.facts).round == world.job.round


def test_a_control_centre_that_restarts_goes_on_with_the_round() -> None:
    world = RoundsWorld()
    world.run_until(is_visit_at("specialist"))
    world.pending.clear()
    world.feed(Recovered())
    starts = [c for c in world.pending if isinstance(c, StartWork)]
    assert {c.site for c in starts} == {"specialist", "third"}
    world.run()
    assert state_of(world) is JobState.REACHED


def grouped(**options: Any) -> RoundsWorld:
    """Two groups, of three and two sites, and a site alone."""
    world = RoundsWorld(**options)
    world.sites, world.groups = (*SITES, *SOUTH), (SOUTH, SITES[:2])
    return world


def next_merge(world: World) -> StartWork:
    """Work on until the next merge, which stays undone."""
    merge = world.run_until(is_merge)
    assert isinstance(merge, StartWork)
    return merge


def merge_works(world: World) -> dict[str, MergeWork]:
    given = world.job.outstanding.values()
    return {o.site: o.work for o in given if isinstance(o.work, MergeWork)}


def test_groups_merge_first_and_their_models_are_merged_with_the_rest() -> None:
    world = grouped(algorithm=Algorithm.FEDADAM)
    first = world.run_until(is_merge)
    parts = merge_works(world)
    assert {site: len(work.trained) for site, work in parts.items()} == {"south1": 3, "general": 2}
    assert all(work.part and work.rule == MergeRule() for work in parts.values())
    assert all(work.moments is None for work in parts.values())
    assert all(work.screened for work in parts.values())
    world.pending.insert(0, first)
    world.run_until(lambda c: is_merge(c) and len(merges(world)) == 2)
    ((at, whole),) = merge_works(world).items()
    assert at == "south3"
    assert not whole.part
    assert not whole.screened
    assert whole.single == (2,), "a group's mean is no site's update"
    assert whole.rule.outer == "adam"
    assert whole.shares == (300, 200, 100)
    assert {model.manifest for model in whole.trained} >= {m.model_out for m in merges(world)}
    world.pending.append(StartWork(SiteId(at), whole))
    world.run()
    job = world.job
    assert state_of(world) is JobState.REACHED
    check_lineage(Lineage(job=job.id, entries=tuple(job.lineage)))
    assert job.best is not None
    made_of = descent(job.lineage, job.best.model.manifest)
    assert len(made_of) == 1 + len(merges(world)) + len(job.made)
    assert view(job, world.now_s).bytes_moved == sum(visit.bytes_in for visit in job.made) + 10


@pytest.mark.parametrize("end", ["fails", "lost", "stalls"])
def test_the_next_site_of_a_group_merges_when_its_aggregator_dies(end: str) -> None:
    world = grouped()
    dying = next_merge(world)
    events: dict[str, JobEvent] = {
        "fails": Reported(failed(dying, "WorkFailed")),
        "lost": SiteLost(dying.site),
        "stalls": WorkStalled(site=dying.site, visit=dying.work.visit, silent_s=1e3),
    }
    assert dying.site == "south1"
    world.feed(events[end])
    assert set(merge_works(world)) == {"south2", "general"}, "the other group goes on"
    assert len(merge_works(world)["south2"].trained) == 3
    world.feed(Reported(world.done(dying)))  # Late: it is of no use any more.
    world.run()
    assert state_of(world) is JobState.REACHED
    rounds_made = {visit.round for visit in world.job.made}
    assert len(world.job.made) == 6 * len(rounds_made)


def test_a_group_merges_anew_when_its_model_cannot_be_fetched() -> None:
    world = grouped()
    world.run_until(lambda c: is_merge(c) and len(merges(world)) == 2)
    whole = next(o for o in world.job.outstanding.values() if isinstance(o.work, MergeWork))
    command = StartWork(whole.site, whole.work)
    world.feed(Reported(failed(command, "Unreachable", "models[0]")))
    assert set(merge_works(world)) == {"south2"}
    assert world.job.failures == {"south1": 1}
    world.run()
    assert state_of(world) is JobState.REACHED


def test_a_group_that_nobody_is_left_to_merge_is_merged_with_the_rest() -> None:
    world = grouped()
    for _ in SOUTH:
        part = world.run_until(lambda c: is_merge(c) and getattr(c, "site", "") in SOUTH)
        assert isinstance(part, StartWork)
        world.feed(Reported(failed(part, "WorkFailed")))
    world.run_until(lambda c: is_merge(c) and not merge_works(world).get("general"))
    ((_, whole),) = merge_works(world).items()
    assert len(whole.trained) == 5
    assert sum(whole.shares) == 600


def test_a_group_that_is_all_of_a_round_is_merged_at_once() -> None:
    world = grouped()
    world.job.failures |= dict.fromkeys(map(SiteId, SITES), 2)
    merge = next_merge(world)
    assert isinstance(merge.work, MergeWork)
    assert not merge.work.part
    assert len(merge.work.trained) == 3


def test_what_is_overdue_is_as_good_as_spent() -> None:
    world = RoundsWorld(within_s=5.0)
    late, merge = first_is_late(world)
    world.feed(Reported(world.done(merge)))
    world.run_until(is_visit_at("general"))
    seen = topology(healthcare())
    asked = route_question(world.job, seen, world.now_s)
    assert asked.spent.examples == 300
    assert asked.spent.cost_usd == 1.5
    assert [visit.option_id for visit in asked.history] == ["general/qa", "specialist/qa"]
    assert late.work.visit in world.job.overdue


def why_undivided(world: RoundsWorld) -> str:
    world.run()
    assert world.job.state.final
    world.feed(ValueAsked(coalitions=64, within_s=600.0))
    world.run()
    found = value_of(world.job, lambda site: OwnerId(site))
    assert found.rounds_measured == 0
    for name, gain in found.gain.items():
        assert sum(credit.value[name] for credit in found.credits) == pytest.approx(gain)
    return found.why


def test_rounds_that_cannot_be_measured_in_parts_say_why() -> None:
    assert "chain" in why_undivided(RoundsWorld(Algorithm.FEDSEQ))
    assert "groups" in why_undivided(grouped())


class SpoiledWorld(RoundsWorld):
    """A site sends weights of 1e30: its own model can be read, what comes of it can be neither
    merged nor measured."""

    liar = SiteId("specialist")

    def __init__(self, algorithm: Algorithm, *, fails: str) -> None:
        super().__init__(algorithm, most=12)
        self.fails = fails
        self.skill = {"broad": -2.0, "expert": -2.0}

    def sum_securely(self) -> None:
        training = Training(algorithm=self.algorithm, secure_aggregation=True)
        self.job.intent = msgspec.structs.replace(self.job.intent, training=training)

    def fact(self, site: SiteId, work: Work) -> LineageFact:
        fact = super().fact(site, work)
        if isinstance(fact, Merge) and isinstance(work, MergeWork) and work.secure:
            return msgspec.structs.replace(fact, summed=tuple(map(SiteId, SITES)))
        return fact

    def done(self, start: StartWork) -> WorkOutcome:
        candidate, now = self.job.candidate, self.job.round
        if isinstance(start.work, VerifyWork) and candidate is not None:
            spoiled = self.liar in {one.visit.site for one in candidate.visits}
            if spoiled and self.fails == "measuring":
                return failed(start, "WorkFailed", "model")
        if isinstance(start.work, MergeWork) and now is not None:
            made = {each.visit.site: k for k, one in enumerate(now.made) for each in one.chain}
            if self.liar in made and self.fails == "merging":
                return failed(start, "InvalidInput", "training.merging.rate")
            if self.liar in made and self.fails == "screening" and len(now.made) > 1:
                return failed(start, "Corrupt", f"models[{made[self.liar]}]")
        return super().done(start)


@pytest.mark.parametrize(
    ("algorithm", "fails"),
    [
        (Algorithm.FEDAVG, "measuring"),
        (Algorithm.DILOCO, "measuring"),
        (Algorithm.DILOCO, "merging"),
        (Algorithm.FEDSEQ, "measuring"),
        (Algorithm.FEDSEQ, "screening"),
    ],
)
@pytest.mark.parametrize("liar", SITES)
def test_only_who_spoils_a_round_is_left_out(algorithm: Algorithm, fails: str, liar: str) -> None:
    """Not the aggregator for what it was given, and not a chain's last site for its first one."""
    world = SpoiledWorld(algorithm, fails=fails)
    world.liar = SiteId(liar)
    world.run()
    assert set(world.job.failures) == {liar}
    assert world.job.excluded == (liar,)
    others = {visit.site for visit in world.job.made}
    assert others == set(SITES) - {liar}, "the job goes on with these"
    again = replay([(decode(encode(event), JobEvent), at_s) for event, at_s in world.facts])
    assert view(again, world.now_s) == view(world.job, world.now_s)


@pytest.mark.parametrize("liar", SITES)
def test_who_spoils_a_secure_sum_is_found_out_in_sums_of_two(liar: str) -> None:
    world = SpoiledWorld(Algorithm.FEDAVG, fails="measuring")
    world.liar = SiteId(liar)
    world.run_until(lambda c: isinstance(c, ComputeRoute) and bool(world.job.checkpoints))
    world.sum_securely()
    world.pending.append(ComputeRoute())
    world.run()
    assert set(world.job.failures) == {liar}
    assert world.job.excluded == (liar,)
    assert min(len(merge.models) for merge in merges(world)) == 2


def test_a_site_is_left_out_by_what_two_aggregators_find() -> None:
    world = RoundsWorld()
    found = []
    for _ in range(2):
        merge = next_merge(world)
        assert isinstance(merge.work, MergeWork)
        assert len(merge.work.trained) == 3
        found.append(merge.site)
        world.feed(Reported(failed(merge, "Corrupt", "models[0]")))
        again = next_merge(world)
        world.feed(Reported(world.done(again)))
    assert len(set(found)) == 2
    assert world.job.excluded == ("general",)


class OneMerges(RoundsWorld):
    """Only one site may merge."""

    def planned(self) -> Planned:
        found = super().planned()
        if found.round is None:
            return found
        merging = msgspec.structs.replace(found.round, aggregators=(SiteId("third"),))
        return msgspec.structs.replace(found, round=merging)


def test_the_only_aggregator_leaves_out_a_model_but_no_site() -> None:
    world = OneMerges()
    for _ in range(2):
        merge = next_merge(world)
        world.feed(Reported(failed(merge, "Corrupt", "models[0]")))
        again = next_merge(world)
        assert isinstance(again.work, MergeWork)
        assert len(again.work.trained) == 2
        world.feed(Reported(world.done(again)))
    assert world.job.failures == {"general": 1}
    told = [(one.site, one.times) for one in view(world.job, 0.0).setbacks]
    assert told == [("general", 1), ("third", 1)]


def test_a_round_goes_on_where_some_sites_cannot_train_what_the_owner_wants() -> None:
    world = RoundsWorld()
    world.run_until(is_training)
    given = {outstanding.site: outstanding for outstanding in world.job.outstanding.values()}
    for site in ("general", "specialist"):
        start = StartWork(SiteId(site), given[SiteId(site)].work)
        world.feed(Reported(failed(start, "NotFound", "model.recipe")))
    assert state_of(world) is JobState.VISITING, "the third one trains"
    world.feed(
        Reported(failed(StartWork(SiteId("third"), given[SiteId("third")].work), "WorkFailed"))
    )
    assert state_of(world) is not JobState.FAILED


def test_a_chain_goes_on_where_its_first_site_cannot_train_what_the_owner_wants() -> None:
    world = RoundsWorld(Algorithm.FEDSEQ)
    world.run_until(is_training)
    given = {outstanding.site: outstanding for outstanding in world.job.outstanding.values()}
    assert set(given) == {"general", "third"}
    for site in ("third", "general"):
        start = StartWork(SiteId(site), given[SiteId(site)].work)
        world.feed(Reported(failed(start, "NotFound", "model.recipe")))
    assert {outstanding.site for outstanding in world.job.outstanding.values()} == {"specialist"}


@pytest.mark.parametrize("algorithm", [Algorithm.FEDAVG, Algorithm.FEDADAM])
def test_an_aggregator_that_says_it_lacks_moments_is_believed_once(algorithm: Algorithm) -> None:
    world = RoundsWorld(algorithm)
    asked = list[SiteId]()
    while len(asked) < 40 and set(asked) <= {"third"}:
        merge = next_merge(world)
        asked.append(merge.site)
        if merge.site == "third":
            world.feed(Reported(failed(merge, "WorkFailed", "moments")))
        else:
            world.feed(Reported(world.done(merge)))
    assert asked[-1] != "third"
    world.run()
    assert state_of(world) is JobState.REACHED


def test_one_owner_is_believed_once_against_a_site_however_many_sites_merge() -> None:
    job = RoundsWorld().job
    job.owners = {SiteId("a"): "acme", SiteId("b"): "acme", SiteId("c"): "other"}
    assert distrust(job, SiteId("b"), ()), "it merged what could not be measured, and named nobody"
    assert distrust(job, SiteId("a"), [SiteId("x")])
    assert not distrust(job, SiteId("b"), [SiteId("x"), SiteId("y")])
    assert distrust(job, SiteId("c"), [SiteId("x")])
    assert set(job.distrusted) == {"a", "b", "c"}


def test_who_may_have_spoiled_a_model_is_listed_with_the_others() -> None:
    world = RoundsWorld()
    merge = next_merge(world)
    world.feed(Reported(world.done(merge)))
    all_verifiers_say(world, "WorkFailed", "model")
    told = {one.site: one.reason for one in view(world.job, 0.0).setbacks}
    assert {"general", "specialist", "third"} <= set(told)
    assert told[SiteId("third")].startswith("made with others, its model")


def test_no_site_is_left_out_where_the_rule_is_at_fault() -> None:
    """Two sites alone meet the same error: its owner must mend it."""
    world = RoundsWorld(Algorithm.DILOCO, most=12)
    for _ in range(500):
        command = world.pending[0] if world.pending else None
        if isinstance(command, StartWork) and isinstance(command.work, MergeWork):
            world.pending.pop(0)
            world.feed(Reported(failed(command, "InvalidInput", "training.merging.rate")))
        elif not world.step():
            break
    assert state_of(world) is JobState.FAILED
    assert world.job.error is not None
    assert world.job.error.field == "training.merging.rate"


def test_who_cannot_merge_what_another_can_is_at_fault() -> None:
    world = RoundsWorld()
    merge = next_merge(world)
    world.feed(Reported(failed(merge, "WorkFailed")))
    assert not world.job.failures, "nobody knows yet"
    again = next_merge(world)
    assert again.site != merge.site
    world.feed(Reported(world.done(again)))
    assert world.job.failures == {merge.site: 1}


def test_a_groups_aggregator_is_not_blamed_for_what_it_merged() -> None:
    world = grouped()
    world.run_until(lambda c: is_merge(c) and len(merges(world)) == 2)
    whole = next(o for o in world.job.outstanding.values() if isinstance(o.work, MergeWork))
    world.feed(Reported(failed(StartWork(whole.site, whole.work), "Corrupt", "models[0]")))
    assert set(merge_works(world)) == {"south2"}
    assert not world.job.failures


def test_a_merge_is_told_whose_data_is_like_most_others() -> None:
    class Differing(RoundsWorld):
        def planned(self) -> Planned:
            found = super().planned()
            if found.round is None:
                return found
            stops = tuple(
                msgspec.structs.replace(stop, alike=stop.site != "third")
                for stop in found.round.visits
            )
            planned = msgspec.structs.replace(found.round, visits=stops)
            return msgspec.structs.replace(found, round=planned)

    world = Differing()
    world.run_until(is_merge)
    (work,) = merge_works(world).values()
    makers = [model.holders[0] for model in work.trained]
    alike = dict(zip(makers, work.alike, strict=True))
    assert alike == {site: site != "third" for site in SITES}


def test_a_secure_sum_that_had_too_few_members_counts_against_nobody_who_asked() -> None:
    """They were away for a moment, and another one sums then."""
    world = SpoiledWorld(Algorithm.FEDAVG, fails="")
    world.sum_securely()
    merge = next_merge(world)
    world.feed(Reported(failed(merge, "Unreachable", "training.secure_aggregation")))
    again = next_merge(world)
    assert again.site != merge.site
    world.feed(Reported(world.done(again)))
    assert not world.job.failures
