"""Writes what happens to sites, jobs and deployments into the event log, as it happens."""

from __future__ import annotations

import msgspec

from daitn.center.drrt_feed import BACK_WITHIN_S
from daitn.oam.api.answers import SiteNews
from daitn.oam.api.asking import Center
from daitn.oam.api.events import EventLog
from daitn.objects.cordons import Cordon
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.identifiers import SiteId
from daitn.objects.jobs import JobSummary, JobView
from daitn.objects.placement import DeploymentView
from daitn.tools import clock

__all__ = ["News"]


class News:
    """What a control centre learns about its network; a `Listener` of its sites."""

    def __init__(self, center: Center, log: EventLog) -> None:
        self._center = center
        self._log = log
        self._cordons: dict[SiteId, Cordon | msgspec.UnsetType] = {}
        """Of all sites that have described themselves."""
        self._alive: set[SiteId] = set()
        self._returning: set[SiteId] = set()
        """Sites that were known before the control centre started: their return is not news."""
        self._returned_s = 0.0
        """When they are expected to have returned."""
        self._deployed: dict[str, DeploymentView] = {}
        self._started = False

    def start(self) -> None:
        """Follow the control centre. What already exists is not news."""
        self._returning = set(self._center.not_back())
        self._returned_s = clock.elapsed_s() + BACK_WITHIN_S
        self._center.observe(self, self.deployed)
        self._started = True

    def job(self, shown: JobView) -> None:
        """Something happened to a job."""
        self._log.put("job", JobSummary.of(shown), owner=shown.owner)

    def described(self, node: NodeDescriptor) -> None:
        before, now = self._cordons.get(node.site), node.cordon
        self._cordons[node.site] = now
        if before is not None and before != now:
            self._tell(node.site, *_service(now))

    def came(self, site: SiteId) -> None:
        if site not in self._alive:
            self._alive.add(site)
            returns = site in self._returning and clock.elapsed_s() < self._returned_s
            self._returning.discard(site)
            if not returns:
                self._tell(site, "alive")
        self._look_at_deployments(site)

    def lost(self, site: SiteId) -> None:
        self._alive.discard(site)
        self._tell(site, "lost")
        self._look_at_deployments(site)

    def removed(self, site: SiteId) -> None:
        self._cordons.pop(site, None)
        self._tell(site, "gone")

    def deployed(self, name: str) -> None:
        """A deployment may have changed, or is retired."""
        before, now = self._deployed.get(name), self._center.deployment(name)
        if now == before:
            return
        if now is not None:
            self._deployed[name] = now
            self._put("deployment", now)
        else:
            del self._deployed[name]
            self._put("retired", {"name": name})

    def _look_at_deployments(self, site: SiteId) -> None:
        for name in self._center.deployments_at(site):
            self.deployed(name)

    def _tell(self, site: SiteId, state: str, detail: str = "") -> None:
        self._put("site", SiteNews(site=site, state=state, at_s=clock.now_s(), detail=detail))

    def _put(self, kind: str, data: object) -> None:
        if self._started:
            self._log.put(kind, data)


def _service(cordon: Cordon | msgspec.UnsetType) -> tuple[str, str]:
    """Whether a site is in service, in a word; and who took it out, and why."""
    if cordon is msgspec.UNSET:
        return "in service", ""
    parts = (f"by {cordon.by}" if cordon.by else "", cordon.reason)
    return cordon.word, ": ".join(filter(None, parts))
