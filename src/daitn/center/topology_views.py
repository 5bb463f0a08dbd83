"""A control centre's answers about its topologies: sites, the DRRT, the QRRT, and their cuts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from daitn.center.estimates import Estimates
from daitn.center.executor import JobExecutor
from daitn.objects.errors import NotFound
from daitn.objects.requests import AssessIntent, SitesWanted
from daitn.objects.wire import decode, encode
from daitn.tools import clock
from daitn.tools.fabric.caller import check_owner
from daitn.topology.analysis import analyse
from daitn.topology.export import export, export_relevant
from daitn.topology.qrrt.export import export_qrrt
from daitn.topology.qrrt.served import served_models
from daitn.topology.qrrt.snapshot import Qrrt
from daitn.topology.snapshot import Drrt, NodeList, SitePage

__all__ = ["TopologyViews"]


Topology = TypeVar("Topology")


class TopologyViews:
    """Handlers of the verbs that show topologies."""

    def __init__(
        self,
        drrt: Callable[[], Drrt],
        qrrt: Callable[[], Qrrt],
        executor: JobExecutor,
        estimates: Estimates,
    ) -> None:
        self._drrt = drrt
        self._qrrt = qrrt
        self._executor = executor
        self._estimates = estimates

    async def on_nodes(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `NodeList`: every site's descriptor and load."""
        sites = self._drrt().sites
        return encode(NodeList(nodes=tuple(sites[site] for site in sorted(sites))))

    async def on_sites(self, key: str, payload: bytes) -> bytes:
        """`SitesWanted` -> `SitePage`: a page of the sites, by name."""
        wanted, sites = decode(payload, SitesWanted), self._drrt().sites
        if wanted.only is not None:
            if wanted.only not in sites:
                raise NotFound(
                    f"there is no site {wanted.only}", field="site", fix="see `daitn get nodes`"
                )
            return encode(SitePage(nodes=(sites[wanted.only],), more=False))
        found = sorted(
            site
            for site, state in sites.items()
            if site > wanted.after
            and wanted.alive in (None, state.alive)
            and wanted.owner in (None, state.descriptor.owner)
            and (wanted.role is None or wanted.role in state.descriptor.roles)
        )
        shown = tuple(sites[site] for site in found[: wanted.limit])
        return encode(SitePage(nodes=shown, more=len(found) > wanted.limit))

    async def on_topology(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `TopologyView`: the DRRT."""
        return await self._executor.asked.of(lambda: partial(_encoded, export, self._drrt()))

    async def on_relevant(self, key: str, payload: bytes) -> bytes:
        """`AssessIntent` -> `RelevantView`: the MS-DRRT of an intent."""
        intent = decode(payload, AssessIntent).intent
        check_owner(intent.owner, f"an intent of {intent.owner}")
        relevant = await self._executor.cut(intent, await self._estimates.needs(intent))
        return await self._executor.asked.of(lambda: partial(_encoded, export_relevant, relevant))

    async def on_analysis(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `Analysis`: the DRRT in numbers."""
        return await self._executor.asked.of(lambda: partial(_encoded, analyse, self._drrt()))

    async def on_served(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `ServedModels`: every deployment, with accuracy and speed."""
        return encode(served_models(self._qrrt()))

    async def on_qrrt(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `QrrtView`: the QRRT."""
        return encode(export_qrrt(self._qrrt(), clock.now_s()))


def _encoded(view: Callable[[Topology], object], topology: Topology) -> bytes:
    return encode(view(topology))
