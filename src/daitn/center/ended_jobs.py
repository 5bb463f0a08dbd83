"""Summaries of ended jobs at the control centre: a few lines each, in memory and on disk.

A job's facts stay in the journal, and everything about it follows from them. Reading them back
takes a tenth of a millisecond a fact, and the job then takes as much memory as one at work. So of
each job that has ended and left nothing to do, an outline is kept as a record of the journal. It
names the number of facts that it includes: with another number of them in the journal, because the
control centre died between the two or an older version went on with the job, it does not count, and
the job is read back from its facts.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from daitn.control.jobs.job import Job
from daitn.control.jobs.valuing import kept_for_value
from daitn.control.jobs.view import view
from daitn.objects.errors import Corrupt, DaitnError
from daitn.objects.identifiers import Digest, JobId, OwnerId
from daitn.objects.jobs import JobState, JobSummary
from daitn.objects.wire import decode, encode
from daitn.tools.journal.protocol import Journal

__all__ = ["EndedJob", "EndedJobs", "models_of"]

log = logging.getLogger(__name__)

_KIND = "ended-job"
_AT_ONCE = 500
"""Outlines in one transaction."""


class EndedJob(msgspec.Struct, frozen=True, gc=False):
    """A job that has ended and has nothing left to do."""

    facts: int
    """Number of facts of the journal that it includes."""
    owner: OwnerId
    state: JobState
    order: Digest
    """The order that started it; empty if none did."""
    entries: int
    """Number of its ledger entries."""
    models: tuple[Digest, ...]
    """Models that are still needed."""
    lines: bytes
    """Its `JobSummary`, encoded: most are never read."""

    @classmethod
    def of(cls, job: Job, facts: int) -> EndedJob:
        """Summary of a job with this many facts."""
        return cls(
            facts=facts,
            owner=job.intent.owner,
            state=job.state,
            order=job.order.digest if job.order else Digest(""),
            entries=len(job.entries),
            models=tuple(sorted(models_of(job))),
            lines=encode(JobSummary.of(view(job, job.at_s))),
        )

    @property
    def summary(self) -> JobSummary:
        """Its entry in a list."""
        return decode(self.lines, JobSummary)


class EndedJobs:
    """All outlines, by job."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._known: dict[JobId, EndedJob] = {}

    def start(self, facts: Mapping[JobId, int]) -> None:
        """Load those that include all of their job's facts; `facts`: the number of a job's
        facts."""
        try:
            outlines = self._journal.all(_KIND)
        except Corrupt as error:
            log.error("ended jobs are read from their events: %s", error)
            return
        for name, stored in outlines.items():
            job = JobId(name)
            try:
                outline = decode(stored, EndedJob)
            except DaitnError:
                continue  # Of a version that kept something else: its facts say all.
            if outline.facts == facts.get(job):
                self._known[job] = outline

    def get(self, job: JobId) -> EndedJob | None:
        """The outline of a job, if stored."""
        return self._known.get(job)

    def put(self, jobs: Iterable[tuple[Job, int]]) -> None:
        """Store jobs, each with the number of its facts. If the journal has no room, they are
        rebuilt from their facts after a restart."""
        new = {job.id: EndedJob.of(job, facts) for job, facts in jobs}
        self._known |= new
        ids = list(new)
        for at in range(0, len(ids), _AT_ONCE):
            records = {(_KIND, str(id_)): encode(new[id_]) for id_ in ids[at : at + _AT_ONCE]}
            try:
                self._journal.post((), records)
            except DaitnError as error:
                log.warning("outlines of ended jobs are not stored: %s", error)
                return

    def drop(self, job: JobId) -> None:
        """A job was resumed."""
        self._known.pop(job, None)

    def models(self) -> set[Digest]:
        """Models left by ended jobs that are still needed."""
        return {model for one in self._known.values() for model in one.models}

    def that_left(self, model: Digest, owner: OwnerId) -> set[JobId]:
        """Jobs of an owner that left a model."""
        known = self._known.items()
        return {id_ for id_, one in known if one.owner == owner and model in one.models}

    def states(self) -> Counter[JobState]:
        """Number of ended jobs by state."""
        return Counter(one.state for one in self._known.values())


def models_of(job: Job) -> set[Digest]:
    """Models that a job still needs."""
    checkpoints = (job.best, job.latest) if not job.state.final else (job.best,)
    needed = {checkpoint.model.manifest for checkpoint in checkpoints if checkpoint}
    needed |= {m.manifest for o in job.outstanding.values() for m in o.work.models}
    needed |= {model.manifest for model in job.between_rounds}
    needed |= set(kept_for_value(job))
    if job.candidate is not None:
        needed.add(job.candidate.model.manifest)
    if job.resumed_from is not None and not job.state.final:
        needed.add(job.resumed_from)
    return needed
