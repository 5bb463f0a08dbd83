"""What an owner is told of a decision: beliefs, obvious plans, earlier jobs."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import msgspec
import pytest
from rich.console import Console

from daitn.cli.tables import assessment_table, decided_table
from daitn.control.feasibility import assess
from daitn.control.route.engine import Mtrce
from daitn.control.route.question import Believed, PastVisit
from daitn.objects.decisions import SiteBelief
from daitn.objects.identifiers import SiteId
from daitn.objects.intents import PinnedVisit, Quantity, Requirement
from daitn.objects.jobs import Decided

from .route_world import checkpoint, healthcare, intent, question, topology
from .test_feasibility import HEALTHCARE

ASKED = question(intent(broad=0.8, expert=0.7), topology(healthcare()))
ROUTE, DECISION = Mtrce().plan(ASKED)


def shown(table: object) -> str:
    """On a wide terminal, with single spaces."""
    stream = io.StringIO()
    Console(file=stream, width=400).print(table)
    return " ".join(stream.getvalue().split())


def belief(site: str, beliefs: tuple[SiteBelief, ...]) -> SiteBelief:
    return next(one for one in beliefs if one.candidate.startswith(f"{site}/"))


def test_the_chosen_route_is_compared_with_the_obvious_ones_in_seconds() -> None:
    plans = [one.plan.partition(",")[0] for one in DECISION.compared]
    assert {"by size", "ring", "nearest first"} <= set(plans)
    assert len(plans) == len(set(plans)), "the best variant of each"
    made = Decided(
        number=1, at_s=0.0, decision=DECISION, route=ROUTE, waiting_for="", why="", visits_before=0
    )
    told = shown(decided_table(made, 1))
    (chosen,) = (one for one in DECISION.ranking if one.candidate == DECISION.chosen)
    by_size = next(one for one in DECISION.compared if one.plan.startswith("by size"))
    assert f"expected: {chosen.expected_s:.0f} s ({chosen.terms['reach']:.0%}); " in told
    assert f"{by_size.plan}: {by_size.expected_s:.0f} s ({by_size.chance:.0%})" in told
    assert "no earlier job with this recipe counts" in told
    assert "what one epoch at each site is believed to teach now" in told
    assert "±" in told


def test_every_site_is_told_with_what_it_is_believed_to_teach_and_how_surely() -> None:
    assert {one.candidate.split("/")[0] for one in DECISION.beliefs} == {
        option.site for option in healthcare()
    }
    general, expert = belief("ghr", DECISION.beliefs), belief("ninds", DECISION.beliefs)
    assert general.gain["broad"] > expert.gain["broad"]
    assert expert.gain["expert"] > belief("cancergov", DECISION.beliefs).gain["expert"]
    assert all(sd > 0.0 for one in DECISION.beliefs for sd in one.gain_sd.values())
    assert general.visits == 0


def test_a_visit_that_taught_nothing_lowers_what_is_believed_of_its_site() -> None:
    flat = {"broad": 0.25, "expert": 0.25}
    made = PastVisit(
        option_id="ghr/pairs", examples=3_000, seconds=30.0, before=flat, after=flat,
        standard_error=dict.fromkeys(flat, 0.01),
    )  # fmt: skip
    after = replace(ASKED, checkpoints=(checkpoint((made,)),), history=(made,))
    _, decision = Mtrce().plan(after)
    now, before = belief("ghr", decision.beliefs), belief("ghr", DECISION.beliefs)
    assert now.visits == 1
    assert now.gain["broad"] < before.gain["broad"]
    assert now.gain_sd["broad"] < before.gain_sd["broad"]


@pytest.mark.parametrize(("jobs", "words"), [(1, "1 earlier job"), (3, "3 earlier jobs")])
def test_experience_that_counts_is_told_with_what_it_changed(jobs: int, words: str) -> None:
    taught = {
        "measuring": Believed(math.log(0.2), 0.3),
        "tau": Believed(5.2 + math.log(3.0), 0.3),
        "warm": Believed(1.01, 1.0),
    }
    _, decision = Mtrce().plan(replace(ASKED, experience=taught, past_jobs=jobs))
    first, *changes = decision.experience
    assert first.startswith(f"{words} with the recipe causal-lm count")
    assert any(
        "measuring all objectives takes about 0.2 s" in one and "1 s would be assumed" in one
        for one in changes
    )
    assert any("learning takes 3 times as long" in one for one in changes)
    assert len(changes) == 2


def test_what_was_left_out_is_told_in_groups_with_field_and_fix() -> None:
    asked = msgspec.structs.replace(
        intent(broad=0.5),
        requirements=(Requirement(quantity=Quantity.SAMPLES, at_least=3_190),),
    )
    said = assess(question(asked, HEALTHCARE(asked)), HEALTHCARE)
    left_out = {r.candidate for r in said.rejections}
    assert len(left_out) > 5
    told = shown(assessment_table(said))
    assert f" and {len(left_out) - 5} more samples" in told
    assert "requirements[0].at_least: " in told


def test_a_refusal_that_can_be_insisted_on_says_how() -> None:
    stop = PinnedVisit(site=SiteId("cdc"), examples=40)
    hopeless = msgspec.structs.replace(intent(broad=0.99), route=(stop,))
    said = assess(question(hopeless, HEALTHCARE(hopeless)), HEALTHCARE)
    assert "not feasible" in shown(assessment_table(said))
    assert "`daitn train --insist` starts it all the same" in shown(assessment_table(said))
    nobody = msgspec.structs.replace(said, could_begin=False)
    assert "--insist" not in shown(assessment_table(nobody))
