"""Lessons of finished jobs, stored for later ones."""

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
"""Jobs per recipe that count, the latest: older ones were about other data and machines."""


class Experience:
    """Lessons of finished jobs, in the journal and in memory."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._past: dict[str, dict[str, PastJob]] = {}
        """By recipe, latest job last."""

    def start(self) -> None:
        """Load the stored lessons; ignore unreadable records."""
        stored = self._journal.all(_KIND)
        # The journal sorts records by name, jobs by age.
        by_age = [job for job in self._journal.jobs() if job in stored]
        for name in (*(stored.keys() - set(by_age)), *by_age):
            try:
                self._add(name, decode(stored[name], PastJob))
            except Exception:
                log.exception("the lessons of job %s cannot be read and are ignored", name)

    def of(self, recipe: str, needs: WorkNeeds) -> dict[str, Believed]:
        """The prior for a job: its recipe's estimates, updated with the lessons of earlier jobs."""
        estimates = {name: Believed(mean, sd) for name, (mean, sd) in needs.learning.items()}
        alike = self._past.get(recipe, {}).values()
        return pooled(alike, recipe, needs.parameters, estimates)

    def count(self, recipe: str) -> int:
        """Number of earlier jobs with this recipe that count."""
        return len(self._past.get(recipe, {}))

    async def learn(self, job: Job, topology: MsDrrt, now_s: float) -> None:
        """Store the lessons of a finished job. Raises `StorageFull`."""
        known = self._past.get(job.intent.model.recipe, {})
        if job.id in known or all(made.round for made in job.made):
            return
        question = route_question(job, topology, now_s)
        past = await asyncio.to_thread(lessons, question, job.needs.parameters)
        if past is not None:
            self._journal.put(_KIND, job.id, encode(past))
            self._add(job.id, past)

    def _add(self, job: str, past: PastJob) -> None:
        alike = self._past.setdefault(past.recipe, {})
        alike[job] = past
        if len(alike) > _MOST_JOBS:
            del alike[next(iter(alike))]
