"""Determines which models are still needed; all others are deleted, here and at all sites."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable

from daitn.center.deployments import DeploymentService
from daitn.center.jobs import JobService
from daitn.center.uploads import Uploads
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
"""Sites delete a model only after hearing repeatedly that it is not needed."""
_TIMEOUT_S = 30.0
_FRESH_S = 1.0
"""How long a list of needed models is reused."""


class Retention:
    """Has models deleted that no job or deployment needs any more."""

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
        """Wait until a job has ended, or a while, then clean up. Jobs may end all the time, and
        contacting thousands of sites takes a while: it then pauses for as long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLEAN_UP_EVERY_S):
                await self._due.wait()
        self._due.clear()
        began_s = time.monotonic()
        await self._clean_up()
        await asyncio.sleep(time.monotonic() - began_s)

    async def _clean_up(self) -> None:
        own = frozenset(self._needed() | self._starts())
        await asyncio.to_thread(self._uploads.clean_up, own, time.monotonic())
        await asyncio.to_thread(self._releases.clean_up, time.monotonic())
        made_s, needed = float("-inf"), b""
        for site in self._alive():
            # Sites wait half an hour before they delete, so a second does not matter.
            if (now_s := time.monotonic()) > made_s + _FRESH_S:
                made_s, needed = now_s, encode(ModelsNeeded(models=tuple(sorted(self._needed()))))
            try:
                await self._fabric.request(
                    keys.site_do(site, "retain"), needed, timeout_s=_TIMEOUT_S
                )
            except DaitnError as error:
                log.info("%s did not delete old models: %s", site, error.problem)

    def _needed(self) -> set[Digest]:
        return self._jobs.models().union(self._deployments.models())

    def _starts(self) -> set[Digest]:
        """Start models of open jobs."""
        return {job.start.manifest for job in self._jobs.unfinished() if job.start is not None}
