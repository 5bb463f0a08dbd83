"""Work that a simulated network does for a job: its duration and its result."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from daitn.control.jobs.job import Job, Outstanding
from daitn.objects.errors import ErrorReport
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.jobs import JobEvent, Reported, SiteLost
from daitn.objects.lineage import Entry, LineageFact, Merge, Origin, Verification, Visit
from daitn.objects.merging import OuterStep
from daitn.objects.messages import MergeWork, VerifyWork, VisitWork, WorkOutcome, WorkState
from daitn.objects.models import ModelRef
from daitn.objects.quorum import ONE
from daitn.sim.learning.measuring import measured
from daitn.sim.learning.world import BEGIN_S, LearningWorld
from daitn.topology.arrays import Floats

__all__ = ["GIVEN_UP_LEAST_S", "GIVEN_UP_TIMES", "INITIALISE_S", "Finished", "Grounds", "refused"]

GIVEN_UP_TIMES, GIVEN_UP_LEAST_S = 4.0, 30.0
"""A visit is abandoned when it exceeds this multiple of the duration expected from its site's
descriptor, and at least this time. Any control centre needs such a limit; policies do not set
it."""
NOTICED_AFTER_S = 10.0
"""Time until a site that left counts as lost: the lease of its liveliness."""
INITIALISE_S = 0.5
"""Time to make a fresh model, on top of a site's overhead."""


@dataclass(frozen=True)
class Finished:
    """The report on a piece of work, and its time."""

    at_s: float
    event: JobEvent


class Grounds:
    """Holds the models of one episode and works on them."""

    def __init__(self, world: LearningWorld) -> None:
        self._world = world
        self._models: dict[Digest, Floats] = {}
        self._moments: dict[Digest, Floats] = {}
        self._visits = 0

    def does(self, job: Job, given: Outstanding, now_s: float) -> Finished:
        """Do a piece of work that begins at `now_s`, with all others that the job awaits."""
        if isinstance(given.work, VerifyWork):
            return self._verifies(job, given, given.work, now_s)
        if isinstance(given.work, MergeWork):
            return self._merges(given, given.work, now_s)
        return self._visit(job, given, given.work, now_s)

    def _visit(self, job: Job, given: Outstanding, work: VisitWork, now_s: float) -> Finished:
        world, begin_s = self._world, now_s - BEGIN_S
        number = world.index[given.site]
        site = world.sites[number]
        self._visits += 1
        if not site.is_present(begin_s):
            return Finished(now_s + NOTICED_AFTER_S, SiteLost(given.site))
        transfer_s = self._fetch_s(work.model, given.site, len(job.outstanding))
        training_s = work.examples * site.example_s
        overhead_s = site.overhead_s + (INITIALISE_S if work.model is None else 0.0)
        took_s = transfer_s + overhead_s + training_s
        left_s = site.leaves_within(begin_s, begin_s + took_s)
        if left_s is not None:
            return Finished(BEGIN_S + left_s + NOTICED_AFTER_S, SiteLost(given.site))
        if site.hangs and work.examples > 0:
            expected_s = transfer_s + overhead_s + self._stated_s(number, work.examples)
            given_up_s = max(GIVEN_UP_LEAST_S, GIVEN_UP_TIMES * expected_s)
            return Finished(now_s + given_up_s, _failed(given, "WorkFailed", "it does not end"))
        end_s = now_s + took_s
        made = Digest(f"{self._visits:064x}")
        if work.model is None:
            self._models[made] = world.learner.fresh(1)
            fact: LineageFact = Origin(
                job=work.job,
                visit=work.visit,
                site=given.site,
                at_s=end_s,
                recipe=work.recipe,
                seed=work.seed,
                model=made,
            )
        else:
            rng = world.rng(1, self._visits)
            self._models[made] = world.learner.trained(
                self._models[work.model.manifest],
                np.array([number]),
                np.array([float(work.examples)]),
                np.array([begin_s]),
                rng,
                merged=job.round is not None,
            )
            fact = Visit(
                job=work.job,
                visit=work.visit,
                site=given.site,
                dataset=work.dataset,
                at_s=end_s,
                seconds=training_s,
                transfer_s=transfer_s,
                overhead_s=overhead_s,
                bytes_in=world.needs.size_bytes if transfer_s > 0.0 else 0,
                examples=work.examples,
                loss=0.0,
                model_in=work.model.manifest,
                model_out=made,
                size_bytes=world.needs.size_bytes,
            )
        model = ModelRef(manifest=made, size_bytes=world.needs.size_bytes, holders=(given.site,))
        return Finished(end_s, _done(given, fact, model))

    def _merges(self, given: Outstanding, work: MergeWork, now_s: float) -> Finished:
        """The aggregator's line receives one model after the other; merging itself takes no
        time."""
        world = self._world
        site = world.sites[world.index[given.site]]
        if not site.is_present(now_s - BEGIN_S):
            return Finished(now_s + NOTICED_AFTER_S, SiteLost(given.site))
        fetched = [self._fetch_s(model, given.site) for model in work.models]
        end_s = now_s + site.overhead_s + sum(fetched)
        left_s = site.leaves_within(now_s - BEGIN_S, end_s - BEGIN_S)
        if left_s is not None:
            return Finished(BEGIN_S + left_s + NOTICED_AFTER_S, SiteLost(given.site))
        self._visits += 1
        made, kept = Digest(f"{self._visits:064x}"), Digest(f"moments{self._visits:057x}")
        model, self._moments[kept] = world.learner.merged(
            self._models[work.base.manifest][0],
            np.concatenate([self._models[model.manifest] for model in work.trained]),
            np.array(work.shares, dtype=np.float64),
            work.rule,
            self._moments[work.moments.manifest] if work.moments else None,
        )
        self._models[made] = model[None]
        remembers = work.rule.outer is not OuterStep.PLAIN
        size = world.needs.size_bytes
        fact = Merge(
            job=work.job,
            visit=work.visit,
            site=given.site,
            at_s=end_s,
            seconds=0.0,
            transfer_s=sum(fetched),
            overhead_s=site.overhead_s,
            bytes_in=size * sum(took_s > 0.0 for took_s in fetched),
            base=work.base.manifest,
            models=tuple(model.manifest for model in work.trained),
            shares=work.shares,
            rule=work.rule,
            model_out=made,
            size_bytes=size,
            moments=kept if remembers else Digest(""),
            moments_bytes=size if remembers else 0,
        )
        return Finished(
            end_s,
            _done(given, fact, ModelRef(manifest=made, size_bytes=size, holders=(given.site,))),
        )

    def _verifies(self, job: Job, given: Outstanding, work: VerifyWork, now_s: float) -> Finished:
        world = self._world
        number = next(
            k
            for k, wanted in enumerate(world.intent.objectives)
            if (wanted.topic, wanted.metric) == (work.topic, work.metric)
        )
        test = world.tests[number]
        true = world.learner.values(self._models[work.model.manifest])[0, number]
        unit = [k for k, one in enumerate(world.verifiers) if one.name == given.site]
        # Each of several verifiers has its own test set.
        whose = [] if world.intent.quorum == ONE else unit
        rng = world.rng(2, self._visits, number, *whose)
        found = measured(test, true, None if world.measured_before else rng)
        transfer_s = self._fetch_s(work.model, given.site)
        seconds = world.verify_s(given.site, number)
        end_s = now_s + transfer_s + seconds
        fact = Verification(
            job=work.job,
            visit=work.visit,
            site=given.site,
            at_s=end_s,
            seconds=seconds,
            transfer_s=transfer_s,
            bytes_in=world.needs.size_bytes if transfer_s > 0.0 else 0,
            model=work.model.manifest,
            topic=work.topic,
            metric=work.metric,
            value=min(1.0, max(0.0, found.value + world.lies.get(given.site, 0.0))),
            items=test.total,
            standard_error=found.standard_error,
            by_label=found.by_label,
        )
        return Finished(end_s, _done(given, fact, None))

    def true_values(self, model: Digest) -> Floats:
        """True values (objectives, labels) of a model of this episode."""
        values: Floats = self._world.learner.values(self._models[model])[0]
        return values

    def _fetch_s(self, model: ModelRef | None, target: SiteId, together: int = 1) -> float:
        """Seconds from the best holder, whose line is shared by `together` sites."""
        if model is None:
            return 0.0
        world = self._world
        return min(world.transfer_s(holder, target, together) for holder in model.holders)

    def _stated_s(self, number: int, examples: int) -> float:
        compute = self._world.sites[number].node.compute
        assert compute is not None
        return examples * self._world.needs.flops_per_example / compute.speed_flops


def refused(given: Outstanding, why: str) -> Reported:
    """A site's immediate refusal."""
    return _failed(given, "Refused", why)


def _done(given: Outstanding, fact: LineageFact, model: ModelRef | None) -> Reported:
    entry = Entry(fact=fact, previous=given.work.previous, public_key="", signature="")
    return Reported(
        WorkOutcome(
            visit=given.work.visit,
            job=given.work.job,
            site=given.site,
            state=WorkState.DONE,
            entry=entry,
            model=model,
        )
    )


def _failed(given: Outstanding, code: str, why: str) -> Reported:
    return Reported(
        WorkOutcome(
            visit=given.work.visit,
            job=given.work.job,
            site=given.site,
            state=WorkState.FAILED,
            error=ErrorReport(code=code, problem=f"{given.site}: {why}"),
        )
    )
