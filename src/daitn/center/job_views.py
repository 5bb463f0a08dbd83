"""What a control centre tells about jobs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from typing import Final

import msgspec

from daitn.center.jobs import JobService
from daitn.control.jobs.job import Job
from daitn.control.jobs.valuing import value_of
from daitn.objects.errors import Corrupt, NotFound
from daitn.objects.identifiers import JobId, OwnerId, SiteId
from daitn.objects.jobs import JobView
from daitn.objects.lineage import Lineage
from daitn.objects.requests import (
    DecisionList,
    JobList,
    JobPage,
    JobQuery,
    JobsWanted,
    TrainedModel,
)
from daitn.objects.roster import Kind
from daitn.objects.value import ValueOfData, ValueQuestion
from daitn.objects.wire import decode, encode
from daitn.tools.fabric.caller import caller, no_such, visible

__all__ = ["MOST_LISTED", "JobViews"]

MOST_LISTED: Final = 500
"""Limit on jobs in a list of full views; `summaries` has the others, page by page."""


class JobViews:
    """Handlers of the verbs that show jobs."""

    def __init__(self, jobs: JobService, owner_of: Callable[[SiteId], OwnerId | None]) -> None:
        """`owner_of`: the owner of a site; none if the site is unknown."""
        self._jobs = jobs
        self._owner_of = owner_of

    async def on_jobs(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `JobList`: one job, or with an empty id the latest, oldest first."""
        query = decode(payload, JobQuery)
        if query.job:
            return encode(JobList(jobs=(self._jobs.view(self.own(query.job).id),)))
        own = (job for job in self._jobs.before(None) if visible(self._jobs.owner(job)))
        shown: list[JobView] = []
        for job in list(itertools.islice(own, MOST_LISTED)):
            with contextlib.suppress(Corrupt):  # It is set aside: the others can be read.
                shown.append(self._jobs.view(job))
            await asyncio.sleep(0)  # Ended ones are read back.
        return encode(JobList(jobs=tuple(reversed(shown))))

    async def on_summaries(self, key: str, payload: bytes) -> bytes:
        """`JobsWanted` -> `JobPage`: a page of the jobs, newest first, in a few lines each."""
        wanted = decode(payload, JobsWanted)
        jobs = self._jobs
        if wanted.before is not None:
            self.own(wanted.before)
        matching = (
            job
            for job in jobs.before(wanted.before)
            if visible(owner := jobs.owner(job))
            and wanted.owner in (None, owner)
            and wanted.state in (None, jobs.state(job))
        )
        found = list(itertools.islice(matching, wanted.limit + 1))
        shown = tuple(map(jobs.summary, found[: wanted.limit]))
        return encode(JobPage(jobs=shown, more=len(found) > wanted.limit))

    async def on_intent(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `TrainingIntent`: what a job's owner wants."""
        return encode(self.own(decode(payload, JobQuery).job).intent)

    async def on_decisions(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `DecisionList`: every decision on a job's route, a list of `Decided`."""
        made = self._jobs.decisions(self.own(decode(payload, JobQuery).job).id)
        return encode(DecisionList(decisions=made))

    async def on_lineage(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `TrainedModel`: a job's best model with its lineage."""
        job = self.own(decode(payload, JobQuery).job)
        if job.best is None:
            raise NotFound(
                f"job {job.id} has no verified model yet", field="job", fix="wait, or watch it"
            )
        lineage = Lineage(job=job.id, entries=tuple(job.lineage))
        trained = TrainedModel(
            job=self._jobs.view(job.id),
            lineage=lineage,
            order=job.order,
            statements=self._jobs.statements(job.id),
        )
        return encode(trained)

    async def on_value(self, key: str, payload: bytes) -> bytes:
        """`ValueQuestion` -> `ValueOfData`: what each data set contributed to a job's best model;
        data owners see their own share."""
        question = decode(payload, ValueQuestion)
        if question.measure or not self._jobs.has(question.job):
            self.own(question.job)
        if question.measure:
            self._jobs.value(question.job, question.coalitions, question.within_s)

        def owner_of(site: SiteId) -> OwnerId:
            return self._owner_of(site) or OwnerId(site)

        job = self._jobs.get(question.job)
        found = value_of(job, owner_of)
        return encode(found if visible(job.intent.owner) else _own_part(found))

    def own(self, id_: JobId) -> Job:
        """A job that the caller may see and command. Raises `NotFound`, also for another
        owner's."""
        if id_ in self._jobs.unreadable and visible(OwnerId("")):  # Nobody knows its owner.
            raise self._jobs.unreadable[id_]
        if not self._jobs.has(id_) or not visible(self._jobs.owner(id_)):
            raise no_such("job", id_, field="job", see="daitn get jobs")
        return self._jobs.get(id_)


def _own_part(found: ValueOfData) -> ValueOfData:
    """The part of the value of a job's data that a data owner may see. Raises `NotFound` if it has
    none."""
    member = caller()
    assert member is not None
    own = tuple(
        credit
        for credit in found.credits
        if member.name == (credit.site if member.kind is Kind.SITE else credit.owner)
    )
    if not own:
        raise no_such("job", found.job, field="job", see="daitn get jobs")
    return msgspec.structs.replace(found, credits=own, gain={}, why="")
