"""Which models are needed still: others go, here and at all sites."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable

from daitn.center.deployments import DeploymentService
from daitn.center.jobs import JobService
from daitn.center.uploads import Uploads
from daitn.control.jobs.valuing import kept_for_value
from daitn.objects.errors import DaitnError
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.messages import ModelsNeeded
from daitn.objects.wire import encode
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric
from daitn.tools.mobility.releases import Releases

__all__ = ["Retention"]

log = logging.getLogger(__name__)

CLEAN_UP_EVERY_S = 600.0
"""Sites delete a model only after they heard over a while that it is not needed."""
_TIMEOUT_S = 30.0


class Retention:
    """Has the models deleted that no job and no deployment needs any more."""

    def __init__(
        self,
        fabric: Fabric,
        jobs: JobService,
        deployments: DeploymentService,
        uploads: Uploads,
        releases: Releases,
        alive: Callable[[], Iterable[SiteId]],
    ) -> None:
        self._fabric = fabric
        self._jobs = jobs
        self._deployments = deployments
        self._uploads = uploads
        self._releases = releases
        self._alive = alive
        self._due = asyncio.Event()

    def settled(self) -> None:
        """A job has ended: sites may store models that are no longer needed."""
        self._due.set()

    async def clean_up_when_due(self) -> None:
        """Wait until a job has ended, or a while, then clean up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLEAN_UP_EVERY_S):
                await self._due.wait()
        self._due.clear()
        await self._clean_up()

    async def _clean_up(self) -> None:
        own = frozenset(self._needed() | self._starts())
        await asyncio.to_thread(self._uploads.clean_up, own, time.monotonic())
        await asyncio.to_thread(self._releases.clean_up, time.monotonic())
        for site in self._alive():
            needed = ModelsNeeded(models=tuple(sorted(self._needed())))
            try:
                await self._fabric.request(
                    keys.site_do(site, "retain"), encode(needed), timeout_s=_TIMEOUT_S
                )
            except DaitnError as error:
                log.info("%s did not delete old models: %s", site, error.problem)

    def _needed(self) -> set[Digest]:
        needed: set[Digest] = set(self._deployments.models())
        for job in self._jobs.all():
            checkpoints = (job.best, job.latest) if not job.state.final else (job.best,)
            needed |= {checkpoint.model.manifest for checkpoint in checkpoints if checkpoint}
            needed |= {m.manifest for o in job.outstanding.values() for m in o.work.models}
            needed |= {model.manifest for model in job.between_rounds}
            needed |= set(kept_for_value(job))
            if job.candidate is not None:
                needed.add(job.candidate.model.manifest)
        return needed

    def _starts(self) -> set[Digest]:
        """Models that open jobs start from."""
        return {job.start.manifest for job in self._jobs.unfinished() if job.start is not None}
