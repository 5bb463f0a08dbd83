"""After its end, a job's rounds are measured with some of their sites only."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from daitn.control.jobs.commands import Command, StartWork
from daitn.control.jobs.job import Job
from daitn.control.jobs.machine import replay
from daitn.control.jobs.valuing import kept_for_value, to_be_valued, value_of
from daitn.objects.compression import Compression
from daitn.objects.errors import IllegalTransition
from daitn.objects.identifiers import Digest, OwnerId, SiteId
from daitn.objects.intents import Training
from daitn.objects.jobs import (
    DeadlinePassed,
    JobState,
    Planned,
    Recovered,
    Reported,
    SiteLost,
    ValueAsked,
    WorkStalled,
)
from daitn.objects.lineage import LineageFact, Merge, Verification, Visit
from daitn.objects.merging import Algorithm
from daitn.objects.messages import MergeWork, VerifyWork, VisitWork, Work
from daitn.objects.models import ModelRef
from daitn.objects.value import Contributions, Credit, Valuation, ValueOfData

from .test_rounds import RoundsWorld, is_merge
from .world import INTENT, World, failed, is_verification

TEACHES = {"general": (0.2, 0.0), "specialist": (0.0, 0.25), "third": (-0.05, 0.02)}
"""What an update of each site adds to both objectives in each round."""


class ValuedWorld(RoundsWorld):
    """A model is worth what the updates in it add up to, with what two sites both teach counted
    once."""

    def __init__(self, algorithm: Algorithm = Algorithm.FEDAVG, most: int = 2) -> None:
        super().__init__(algorithm, most)
        training = Training(algorithm=algorithm, contributions=Contributions.SHAPLEY)
        self.job.intent = msgspec.structs.replace(INTENT, training=training)
        event, at_s = self.facts[0]
        self.facts[0] = (msgspec.structs.replace(event, intent=self.job.intent), at_s)
        self.compression = Compression.NONE
        self.teaches: Mapping[str, tuple[float, float]] = TEACHES
        self.made: dict[str, tuple[frozenset[str], Digest | None]] = {}
        """Model to the sites whose updates are in it, and the model that these were made from."""

    def fact(self, site: SiteId, work: Work) -> LineageFact:
        found = super().fact(site, work)
        if isinstance(work, VerifyWork):
            place = 0 if work.topic == "medicine" else 1
            value = max(0.0, self.worth(work.model.manifest)[place])
            measured: LineageFact = msgspec.structs.replace(found, value=value, standard_error=0.01)
            return measured
        if isinstance(work, MergeWork):
            assert isinstance(found, Merge)
            members = [m for model in work.trained for m in self.made[model.manifest][0]]
            self.made[found.model_out] = frozenset(members), work.base.manifest
        elif isinstance(found, Visit) and isinstance(work, VisitWork):
            self.made[found.model_out] = frozenset({str(site)}), found.model_in
            found = msgspec.structs.replace(found, compression=work.compression)
        return found

    def planned(self) -> Planned:
        planned = super().planned()
        if planned.round is None:
            return planned
        visits = tuple(
            msgspec.structs.replace(visit, compression=self.compression)
            for visit in planned.round.visits
        )
        found = msgspec.structs.replace(planned.round, visits=visits)
        return msgspec.structs.replace(planned, round=found)

    def worth(self, model: str) -> tuple[float, float]:
        members, base = self.made.get(model, (frozenset[str](), None))
        before = self.worth(base) if base else (0.25, 0.25)
        return add(before, joint(members, self.teaches))


def joint(
    members: frozenset[str], teaches: Mapping[str, tuple[float, float]] = TEACHES
) -> tuple[float, float]:
    broad, expert = (sum(teaches[one][n] for one in sorted(members)) for n in (0, 1))
    if {"general", "specialist"} <= members:
        broad -= 0.04
    return broad, expert


def add(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return one[0] + other[0], one[1] + other[1]


def valued(world: World) -> ValueOfData:
    return value_of(world.job, lambda site: OwnerId(f"{site}-owner"))


def ended(most: int = 2, algorithm: Algorithm = Algorithm.FEDAVG) -> ValuedWorld:
    world = ValuedWorld(algorithm, most)
    world.run()
    assert world.job.state is JobState.EXHAUSTED
    return world


def ask(world: World, coalitions: int = 64, within_s: float = 600.0) -> None:
    world.feed(ValueAsked(coalitions=coalitions, within_s=within_s))


def by_site(value: ValueOfData) -> dict[str, Credit]:
    return {credit.site: credit for credit in value.credits}


def exactly(site: str, objective: int) -> float:
    """Of one round, by all orders."""
    total = 0.0
    for order in itertools.permutations(TEACHES):
        before = frozenset(order[: order.index(site)])
        total += joint(before | {site})[objective] - joint(before)[objective]
    return total / math.factorial(len(TEACHES))


def test_sites_of_rounds_get_their_shapley_values_by_work_that_sites_do() -> None:
    world = ended(most=2)
    before = valued(world)
    assert (before.method, before.rounds_measured) == (Contributions.VISITS, 0)
    assert all(c.value["broad"] == pytest.approx(0.22 / 3) for c in before.credits)
    ask(world)
    world.run()
    after = valued(world)
    assert (after.method, after.rounds, after.rounds_measured) == (Contributions.SHAPLEY, 2, 2)
    assert (after.coalitions, after.valuation) == (12, Valuation.ENDED)
    assert after.credits[0].owner == f"{after.credits[0].site}-owner"
    for site, credit in by_site(after).items():
        assert credit.value["broad"] == pytest.approx(2 * exactly(site, 0))
        assert credit.value["expert"] == pytest.approx(2 * exactly(site, 1))
        assert (credit.visits, credit.examples) == (2, 200)
        assert 0.0 < credit.standard_error["broad"] < 0.03
    assert by_site(after)["third"].value["broad"] < 0.0, "it did harm"
    for objective, gain in after.gain.items():
        assert sum(c.value[objective] for c in after.credits) == pytest.approx(gain)


def test_what_is_measured_stays_out_of_the_lineage_and_is_replayed() -> None:
    world = ended()
    lineage, spent = list(world.job.lineage), world.job.spent_examples
    ask(world)
    world.run()
    assert (world.job.lineage, world.job.spent_examples) == (lineage, spent)
    again = replay(world.facts)
    assert value_of(again, lambda site: OwnerId(f"{site}-owner")) == valued(world)
    assert world.job.state is JobState.EXHAUSTED
    assert not world.job.outstanding
    assert not world.job.open


def test_one_model_alone_needs_no_merging_and_a_coalition_is_merged_where_its_round_was() -> None:
    world = ended(most=1)
    world.started.clear()
    ask(world)
    world.run()
    given = [start for start in world.started if isinstance(start.work, MergeWork)]
    assert [len(start.work.models) - 1 for start in given] == [2, 2, 2]
    first = next(e.fact for e in world.job.lineage if isinstance(e.fact, Merge))
    assert {start.site for start in given} == {first.site}
    measured = [start for start in world.started if isinstance(start.work, VerifyWork)]
    assert len(measured) == 6 * 2
    assert {start.site for start in measured} == {"mpvu-broad", "mpvu-expert"}


def test_an_update_alone_is_merged_before_it_is_measured() -> None:
    """It is no model, so that no verifier can measure it as it is."""
    world = ValuedWorld(most=1)
    world.compression = Compression.INT8
    world.run()
    updates = {e.fact.model_out for e in world.job.lineage if isinstance(e.fact, Visit)}
    world.started.clear()
    ask(world)
    world.run()
    measured = [s.work.model.manifest for s in world.started if isinstance(s.work, VerifyWork)]
    assert len(measured) == 6 * 2
    assert not updates & set(measured)
    assert valued(world).rounds_measured == 1


def test_a_verifier_that_sends_a_model_has_it_measured_nowhere() -> None:
    world = ended(most=1)
    ask(world)
    command = world.run_until(is_verification)
    assert isinstance(command, StartWork)
    outcome = world.done(command)
    world.feed(
        Reported(
            msgspec.structs.replace(
                outcome,
                model=ModelRef(manifest=Digest("e" * 64), size_bytes=1, holders=(command.site,)),
            )
        )
    )
    world.run()
    assert not [s for s in world.started if "e" * 64 in [m.manifest for m in s.work.models]]
    assert valued(world).rounds_measured == 1


def test_an_outer_step_remembers_what_it_did_when_the_round_was_merged() -> None:
    world = ended(most=2, algorithm=Algorithm.FEDADAM)
    world.started.clear()
    ask(world)
    world.run()
    works = [start.work for start in world.started if isinstance(start.work, MergeWork)]
    assert {bool(work.moments) for work in works} == {False, True}, "the first round had nothing"
    assert valued(world).rounds_measured == 2


def test_a_robust_rule_is_not_asked_to_merge_too_few() -> None:
    world = ended(most=1, algorithm=Algorithm.MEDIAN)
    ask(world)
    world.run()
    after = valued(world)
    assert (after.coalitions, after.rounds_measured) == (0, 1)
    (share,) = {round(c.value["broad"], 9) for c in after.credits}
    assert share == pytest.approx(after.gain["broad"] / 3)


def is_valuing(command: Command) -> bool:
    return isinstance(command, StartWork)


def test_a_round_whose_merging_site_leaves_is_shared_by_examples() -> None:
    for end in ("left", "failed", "stalled"):
        world = ended(most=1)
        ask(world)
        merge = world.run_until(is_merge)
        assert isinstance(merge, StartWork)
        match end:
            case "left":
                world.feed(SiteLost(merge.site))
            case "failed":
                world.feed(Reported(failed(merge, "Corrupt", "models[0]")))
            case _:
                world.feed(WorkStalled(site=merge.site, visit=merge.work.visit, silent_s=900.0))
        world.run()
        after = valued(world)
        assert (after.valuation, after.rounds_measured) == (Valuation.ENDED, 0)
        assert after.why
        assert sum(c.value["broad"] for c in after.credits) == pytest.approx(after.gain["broad"])
        ask(world)  # Once it is back.
        world.run()
        assert valued(world).rounds_measured == 1


def test_measuring_ends_at_its_deadline_and_goes_on_when_asked_again() -> None:
    world = ended(most=1)
    ask(world, within_s=5.0)
    world.run_until(is_merge)
    known = valued(world).coalitions
    assert known == 3
    world.feed(DeadlinePassed())
    assert not world.job.open
    assert "time" in valued(world).why
    world.pending.clear()
    ask(world)
    world.run()
    assert (valued(world).coalitions, valued(world).rounds_measured) == (6, 1)
    assert len([s for s in world.started if isinstance(s.work, VerifyWork)]) == 2 * (6 + 2)


def test_a_control_centre_that_restarts_goes_on_measuring() -> None:
    world = ended(most=1)
    ask(world)
    world.run_until(is_merge)
    world.job = replay(world.facts)
    assert world.job.open
    world.feed(Recovered())
    (given,) = world.job.outstanding.values()
    world.pending = [StartWork(given.site, given.work)]
    world.run()
    assert valued(world).rounds_measured == 1


def test_no_more_is_measured_than_was_asked_for() -> None:
    world = ended(most=2)
    ask(world, coalitions=7)
    world.run()
    after = valued(world)
    assert after.coalitions <= 7
    assert "--coalitions" in after.why
    assert after.rounds_measured == 1
    for objective, gain in after.gain.items():
        assert sum(c.value[objective] for c in after.credits) == pytest.approx(gain)


def test_models_are_kept_until_they_are_measured() -> None:
    world = ended(most=1)
    assert to_be_valued(world.job)
    ask(world)
    world.run_until(is_merge)
    kept = kept_for_value(world.job)
    (merge,) = [e.fact for e in world.job.lineage if isinstance(e.fact, Merge)]
    assert {merge.base, *merge.models} <= set(kept)
    running = ValuedWorld(most=2)
    first = running.run_until(is_merge)
    assert not kept_for_value(running.job)
    running.pending.insert(0, first)
    running.step()
    running.run_until(is_merge)
    assert len(kept_for_value(running.job)) == 4
    world.pending.clear()
    world.feed(DeadlinePassed())
    assert not kept_for_value(world.job)


def test_models_of_rounds_are_kept_while_an_earlier_model_is_the_best() -> None:
    """The model goes on from the latest, and may be the best in the end."""
    world = ValuedWorld(most=2)
    world.teaches = dict.fromkeys(TEACHES, (-0.1, -0.1))
    world.run_until(lambda c: is_merge(c) and world.job.rounds == 1)
    assert world.job.best is world.job.checkpoints[0]
    first = next(e.fact for e in world.job.lineage if isinstance(e.fact, Merge))
    assert {first.base, *first.models} <= set(kept_for_value(world.job))


def test_a_route_gives_each_site_what_its_visits_gained() -> None:
    world = World()
    world.run()
    assert world.job.state is JobState.REACHED
    after = valued(world)
    assert not to_be_valued(world.job)
    measured = [e.fact for e in world.job.lineage if isinstance(e.fact, Verification)]
    assert by_site(after)["general"].value["broad"] == pytest.approx(0.75)
    assert by_site(after)["general"].value["expert"] == pytest.approx(0.0)
    assert by_site(after)["general"].standard_error["broad"] == pytest.approx(0.02 * 2)
    assert sum(c.value["expert"] for c in after.credits) == pytest.approx(after.gain["expert"])
    assert len(measured) == 2 * len(world.job.checkpoints)
    ask(world)
    assert not world.job.open
    assert valued(world) == msgspec.structs.replace(after, valuation=Valuation.ENDED)


def test_visits_in_a_row_share_the_errors_of_what_lies_between_them() -> None:
    world = World()
    world.routes = lambda job: only_general(world, job)
    world.run()
    after = valued(world)
    (credit,) = after.credits
    assert credit.visits == 3
    assert credit.standard_error["broad"] == pytest.approx(0.02 * math.sqrt(2))


def only_general(world: World, job: Job) -> Any:
    route = World.next_route(world, job)
    if route is None or len(job.made) >= 3:
        return None
    stop = msgspec.structs.replace(route.visits[0], site=SiteId("general"))
    return msgspec.structs.replace(route, visits=(stop,))


def test_nothing_is_measured_of_a_job_that_runs() -> None:
    world = ValuedWorld()
    world.run_until(is_merge)
    assert not to_be_valued(world.job)
    with pytest.raises(IllegalTransition):
        ask(world)
    assert valued(world).credits == ()
    assert valued(World()).why


def test_a_lineage_in_which_a_model_comes_back_ends() -> None:
    world = World()
    original = world.fact

    def fact(site: SiteId, work: Work) -> LineageFact:
        found = original(site, work)
        if isinstance(found, Visit):
            return msgspec.structs.replace(found, model_out=found.model_in)
        return found

    world.fact = fact  # type: ignore[method-assign]
    world.run()
    found = valued(world)
    assert found.gain
    for objective, gain in found.gain.items():
        assert sum(c.value[objective] for c in found.credits) == pytest.approx(gain)


def test_an_intent_may_ask_for_no_contributions() -> None:
    world = ended(most=1)
    training = Training(algorithm=Algorithm.FEDAVG, contributions=Contributions.NONE)
    world.job.intent = msgspec.structs.replace(INTENT, training=training)
    assert not to_be_valued(world.job)
    assert (valued(world).method, valued(world).credits) == (Contributions.NONE, ())
    ask(world)  # Whoever asks by command is answered.
    world.run()
    assert valued(world).method is Contributions.SHAPLEY


def test_secure_sums_are_not_measured_in_parts_and_say_so() -> None:
    world = ended(most=1)
    training = Training(algorithm=Algorithm.FEDAVG, secure_aggregation=True)
    world.job.intent = msgspec.structs.replace(INTENT, training=training)
    ask(world)
    world.run()
    after = valued(world)
    assert (after.rounds, after.rounds_measured, after.coalitions) == (1, 0, 0)
    assert "secure sums" in after.why
