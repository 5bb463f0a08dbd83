"""Jobs to report on, made by the real job machine."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from daitn.control.jobs.job import Job
from daitn.control.jobs.machine import decisions
from daitn.control.jobs.valuing import value_of
from daitn.control.jobs.view import view
from daitn.oam.report.facts import Proof, ReportFacts
from daitn.objects.decisions import Compared, Decision, Rejection, Route, Scored, SiteBelief
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.jobs import Planned, ValueAsked
from daitn.objects.lineage import LineageFact, Verification, Visit
from daitn.objects.messages import VerifyWork, Work
from daitn.topology.snapshot import SiteState
from tests.cli.test_picture import SITES
from tests.control.jobs.test_valuing import ValuedWorld
from tests.control.jobs.world import INTENT, World, stop

REASONED = Decision(
    policy="mtrce",
    chosen="by size, 2 epochs a visit",
    ranking=(
        Scored(
            candidate="by size, 2 epochs a visit",
            score=0.9,
            terms={"reach": 0.84},
            expected={"broad": 0.82, "expert": 0.93},
            expected_s=14.2,
        ),
    ),
    rejections=(
        Rejection(
            candidate="cdc/cdc",
            filter="jurisdiction",
            reason="the data's owner lets no model leave CH",
            field="requirements[0]",
        ),
    ),
    snapshot_version=3,
    at_s=0.0,
    compared=(
        Compared(plan="by size, 1 epoch a visit", expected_s=17.0, chance=0.7),
        Compared(plan="ring, 500 examples", expected_s=31.0, chance=0.55),
    ),
    beliefs=(
        SiteBelief(
            candidate="ghr/qa", visits=1, examples=4300, expected_s=4.1,
            gain={"broad": 0.21, "expert": 0.02}, gain_sd={"broad": 0.05, "expert": 0.03},
        ),
        SiteBelief(
            candidate="ninds/qa", visits=0, examples=871, expected_s=1.2,
            gain={"broad": -0.01, "expert": 0.31}, gain_sd={"broad": 0.02, "expert": 0.08},
        ),
    ),
)  # fmt: skip


class RouteWorld(World):
    """A model that goes to these sites, and forgets what it does not see."""

    def __init__(self, sites: Sequence[str], most: float = 0.93) -> None:
        super().__init__(INTENT, job="healthcare-1")
        self.sites = list(sites)
        self.broad, self.expert = 0.25, 0.25
        self.most = most

    def planned(self) -> Planned:
        return msgspec.structs.replace(super().planned(), decision=REASONED)

    def next_route(self, job: Job) -> Route | None:
        if len(job.made) >= len(self.sites):
            return None
        start = job.latest.model.manifest if job.latest else None
        planned = stop(self.sites[len(job.made)], 900)
        planned = msgspec.structs.replace(planned, expected={"broad": 0.8, "expert": 0.9})
        return Route(start=start, visits=(planned,), reaches=True, chance=0.8)

    def fact(self, site: SiteId, work: Work) -> LineageFact:
        found = super().fact(site, work)
        if isinstance(found, Visit):
            expert = site in ("ninds", "specialist")
            self.expert += (0.45 if expert else -0.06) * (self.most - self.expert)
            self.broad += (-0.05 if expert else 0.5) * (self.most - self.broad)
            return msgspec.structs.replace(found, seconds=4.2, bytes_in=1_200_000)
        if isinstance(work, VerifyWork):
            assert isinstance(found, Verification)
            value = self.broad if work.topic == "medicine" else self.expert
            wave = 0.1 * math.sin(len(self.job.made))
            return msgspec.structs.replace(
                found,
                value=value,
                standard_error=0.018,
                items=480,
                bytes_in=1_200_000,
                by_label={"epilepsy": value + wave / 2, "migraine": value - wave / 2},
            )
        return found


def facts_of(world: World, sites: tuple[SiteState, ...] = SITES) -> ReportFacts:
    """What a control centre would tell of a job."""
    job = world.job
    return ReportFacts(
        job=view(job, world.now_s),
        intent=job.intent,
        decisions=decisions(world.facts),
        entries=tuple(job.lineage),
        proof=Proof(holds=True, sentence=f"All {len(job.lineage)} entries are signed."),
        value=value_of(job, lambda site: OwnerId(f"{site} hospital")),
        sites=sites,
        made_at_s=1_790_000_000.0,
        version="0",
    )


def a_route(sites: Sequence[str] = ("ghr", "gard", "ninds", "ninds", "mplus")) -> ReportFacts:
    """The healthcare scenario's kind of job."""
    world = RouteWorld(sites)
    world.run()
    return facts_of(world)


def rounds(measured: bool = True) -> ReportFacts:
    """Rounds of three sites, one of which does harm."""
    world = ValuedWorld(most=4)
    world.run()
    if measured:
        world.feed(ValueAsked(coalitions=64, within_s=600.0))
        world.run()
    return facts_of(world, ())
