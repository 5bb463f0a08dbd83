"""What finished jobs taught, kept for the jobs to come."""

from __future__ import annotations

import asyncio
import logging

from daitn.control.jobs.job import Job
from daitn.control.jobs.question import route_question
from daitn.control.route.experience import PastJob, lessons, pooled
from daitn.control.route.question import Believed
from daitn.objects.jobs import WorkNeeds
from daitn.objects.wire import decode, encode
from daitn.tools.journal.protocol import Journal
from daitn.topology.snapshot import MsDrrt

__all__ = ["Experience"]

log = logging.getLogger(__name__)

_KIND = "experience"
_MOST_JOBS = 200
"""The latest of a recipe that count: what was long ago is of other data and other machines."""


class Experience:
    """Lessons of finished jobs, in the journal and in memory."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._past: dict[str, dict[str, PastJob]] = {}
        """By recipe, the latest last."""

    def start(self) -> None:
        """Read what was kept; a record that cannot be read teaches nothing."""
        kept = self._journal.all(_KIND)
        # Records are in the order of their names; jobs, in which they came.
        came = [job for job in self._journal.jobs() if job in kept]
        for name in (*(kept.keys() - set(came)), *came):
            try:
                self._take(name, decode(kept[name], PastJob))
            except Exception:
                log.exception("what job %s taught cannot be read and is left aside", name)

    def of(self, recipe: str, needs: WorkNeeds) -> dict[str, Believed]:
        """The prior for a job: what its recipe says, and what jobs with it taught."""
        begun = {name: Believed(mean, sd) for name, (mean, sd) in needs.learning.items()}
        alike = self._past.get(recipe, {}).values()
        return pooled(alike, recipe, needs.parameters, begun)

    async def learn(self, job: Job, topology: MsDrrt, now_s: float) -> None:
        """Keep what a finished job taught. Raises `StorageFull`."""
        if not job.made or job.id in self._past.get(job.intent.model.recipe, {}):
            return
        question = route_question(job, topology, now_s)
        past = await asyncio.to_thread(lessons, question, job.needs.parameters)
        if past is not None:
            self._journal.put(_KIND, job.id, encode(past))
            self._take(job.id, past)

    def _take(self, job: str, past: PastJob) -> None:
        alike = self._past.setdefault(past.recipe, {})
        alike[job] = past
        if len(alike) > _MOST_JOBS:
            del alike[next(iter(alike))]
