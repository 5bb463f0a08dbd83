"""Builds the live topology (DRRT) from descriptors and measurements of sites."""

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
from daitn.tools.roster import LiveRoster
from daitn.tools.throttled import ThrottledLog
from daitn.topology.snapshot import Drrt
from daitn.topology.state import DrrtState

__all__ = ["DrrtFeed", "JournalKeys"]

log = logging.getLogger(__name__)

BACK_WITHIN_S = 60.0
"""After a start, jobs wait this long for known sites to return before they end."""
_KEY_KIND = "site-key"


class JournalKeys:
    """Public keys of sites, as last received, in the control centre's journal."""

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
    """Keeps the DRRT up to date, and reports sites that join or are lost."""

    def __init__(
        self,
        fabric: Fabric,
        journal: Journal,
        on_joined: Callable[[SiteId], None],
        on_lost: Callable[[SiteId], None],
        verifiers: Collection[SiteId],
        roster: LiveRoster | None = None,
    ) -> None:
        """`verifiers` and `roster`: see `Membership`."""
        self._fabric = fabric
        self._keys = JournalKeys(journal)
        self.membership = Membership(fabric, self._keys, self, roster=roster, verifiers=verifiers)
        self._on_joined = on_joined
        self._on_lost = on_lost
        self._state = DrrtState()
        self._dropped = ThrottledLog(log)
        self._subscription: Registration | None = None
        self._started_s, self._started_at_s = 0.0, 0.0
        self._known: frozenset[SiteId] = frozenset()

    async def start(self) -> None:
        self._started_s, self._started_at_s = time.monotonic(), clock.now_s()
        self._known = frozenset(self._keys.sites())
        self._subscription = await self._fabric.subscribe(keys.ALL_SENSED, self._on_sensed)
        await self.membership.start()

    async def close(self) -> None:
        if self._subscription is not None:
            await self._subscription.close()
        await self.membership.close()

    def snapshot(self) -> Drrt:
        """The current topology."""
        return self._state.snapshot(clock.now_s())

    def not_back(self) -> tuple[SiteId, ...]:
        """Sites known before this control centre started that may still return."""
        if time.monotonic() - self._started_s > BACK_WITHIN_S:
            return ()
        away = self._known - set(self.snapshot().alive())
        return tuple(sorted(site for site in away if self.key_of(site) is not None))

    def key_of(self, site: SiteId) -> str | None:
        """The public key of a site; none if it is unknown or not a member."""
        return self.membership.key_of(site)

    def described(self, node: NodeDescriptor) -> None:
        """A site that was known and ran before this control centre started may have been there all
        the time."""
        back = node.site in self._known and time.monotonic() - self._started_s <= BACK_WITHIN_S
        alive_before = back and node.started_at_s < self._started_at_s
        self._state.absorb(node, clock.now_s(), alive_before=alive_before)

    def came(self, site: SiteId) -> None:
        self._state.appeared(site, clock.now_s())
        self._on_joined(site)

    def lost(self, site: SiteId) -> None:
        self._state.lost(site, clock.now_s())
        self._on_lost(site)

    def removed(self, site: SiteId) -> None:
        self._state.removed(site, clock.now_s())

    async def _on_sensed(self, key: str, payload: bytes) -> None:
        now_s = clock.now_s()
        try:
            site = keys.site_of(key)
            sensed = decode(payload, Sensed)
            self.membership.heard_of(site, sensed.edition)
            for link in sensed.links:
                if link.source == site:
                    self._state.absorb(link, now_s)
            if sensed.load is not None and sensed.load.site == site:
                self._state.absorb(sensed.load, now_s)
        except DaitnError as error:
            self._dropped.warning(key, "readings at %s were rejected: %s", key, error)
