"""From what sites say and measure to the live topology (DRRT)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection

from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.errors import DaitnError
from daitn.objects.identifiers import SiteId
from daitn.objects.messages import Sensed
from daitn.objects.wire import decode
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric, Registration
from daitn.tools.journal.protocol import Journal
from daitn.tools.membership import Membership
from daitn.topology.snapshot import Drrt
from daitn.topology.state import DrrtState

__all__ = ["DrrtFeed", "JournalKeys"]

log = logging.getLogger(__name__)

BACK_WITHIN_S = 60.0
"""After a start, how long jobs wait for sites that were there before rather than end."""
_KEY_KIND = "site-key"


class JournalKeys:
    """The sites' known public keys, in the control centre's journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def get(self, site: SiteId) -> str | None:
        known = self._journal.get(_KEY_KIND, site)
        return None if known is None else known.decode()

    def put(self, site: SiteId, public_key: str) -> None:
        self._journal.put(_KEY_KIND, site, public_key.encode())

    def sites(self) -> tuple[SiteId, ...]:
        return tuple(SiteId(site) for site in self._journal.all(_KEY_KIND))


class DrrtFeed:
    """Keeps the DRRT up to date, and tells who came and who was lost."""

    def __init__(
        self,
        fabric: Fabric,
        journal: Journal,
        came: Callable[[SiteId], None],
        lost: Callable[[SiteId], None],
        verifiers: Collection[SiteId],
    ) -> None:
        """`verifiers`: see `Membership`."""
        self._fabric = fabric
        self._keys = JournalKeys(journal)
        self.membership = Membership(fabric, self._keys, self, verifiers=verifiers)
        self._tell_came = came
        self._tell_lost = lost
        self._state = DrrtState()
        self._sensed: Registration | None = None
        self._started_s = 0.0
        self._known: frozenset[SiteId] = frozenset()

    async def start(self) -> None:
        self._started_s = time.monotonic()
        self._known = frozenset(self._keys.sites())
        self._sensed = await self._fabric.subscribe(keys.ALL_SENSED, self._on_sensed)
        await self.membership.start()

    async def close(self) -> None:
        if self._sensed is not None:
            await self._sensed.close()
        await self.membership.close()

    def snapshot(self) -> Drrt:
        """The topology now."""
        return self._state.snapshot(clock.now_s())

    def not_back(self) -> tuple[SiteId, ...]:
        """Sites that were known before this control centre started and may still show up."""
        if time.monotonic() - self._started_s > BACK_WITHIN_S:
            return ()
        return tuple(sorted(self._known - set(self.snapshot().alive())))

    def key_of(self, site: SiteId) -> str | None:
        """The public key under which a site was first heard; none if it never was."""
        return self.membership.key_of(site)

    def described(self, node: NodeDescriptor) -> None:
        self._state.absorb(node, clock.now_s())

    def came(self, site: SiteId) -> None:
        self._state.appeared(site, clock.now_s())
        self._tell_came(site)

    def lost(self, site: SiteId) -> None:
        self._state.lost(site, clock.now_s())
        self._tell_lost(site)

    async def _on_sensed(self, key: str, payload: bytes) -> None:
        now_s = clock.now_s()
        try:
            site = keys.site_of(key)
            sensed = decode(payload, Sensed)
            for link in sensed.links:
                if link.source == site:
                    self._state.absorb(link, now_s)
            if sensed.load is not None and sensed.load.site == site:
                self._state.absorb(sensed.load, now_s)
        except DaitnError as error:
            log.warning("the readings at %s are not believed: %s", key, error)
