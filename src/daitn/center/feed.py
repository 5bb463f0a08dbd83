"""From what sites say and measure to the live topology (DRRT)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from daitn.identity.signing import check_advert
from daitn.objects.errors import Corrupt, DaitnError, InvalidInput, Refused
from daitn.objects.identifiers import SiteId
from daitn.objects.messages import Advert, Sensed
from daitn.objects.wire import decode
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric, Registration
from daitn.tools.store.journal import Journal
from daitn.topology.snapshot import Drrt
from daitn.topology.state import DrrtState

__all__ = ["TopologyFeed"]

log = logging.getLogger(__name__)

LOST_AFTER_S = 1.0
"""How long a site's token may be gone before its work is given up: a link flaps, a node dies."""
BACK_WITHIN_S = 60.0
"""After a start, how long jobs wait for sites that were there before rather than end."""
DESCRIBE_TIMEOUT_S = 5.0
_KEY_KIND = "site-key"


class TopologyFeed:
    """Keeps the DRRT up to date, and tells who came and who was lost.

    A site's public key is trusted at first sight and kept: an advert under the same name with
    another key is refused, before and after a restart.
    """

    def __init__(
        self,
        fabric: Fabric,
        journal: Journal,
        came: Callable[[SiteId], None],
        lost: Callable[[SiteId], None],
    ) -> None:
        self._fabric = fabric
        self._journal = journal
        self._came = came
        self._lost = lost
        self._state = DrrtState()
        self._going: dict[SiteId, asyncio.Task[None]] = {}
        self._greeting: dict[SiteId, asyncio.Task[None]] = {}
        self._registrations: list[Registration] = []
        self._started_s = 0.0
        self._known: set[SiteId] = set()

    async def start(self) -> None:
        self._started_s = time.monotonic()
        self._known = {SiteId(site) for site in self._journal.all(_KEY_KIND)}
        subscribe = self._fabric.subscribe
        self._registrations = [
            await subscribe(keys.ALL_ADVERTS, self._on_advert),
            await subscribe(keys.ALL_SENSED, self._on_sensed),
            await self._fabric.watch(keys.ALL_SITES_ALIVE, self._on_alive),
        ]

    async def close(self) -> None:
        for registration in self._registrations:
            await registration.close()
        tasks = [*self._going.values(), *self._greeting.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def snapshot(self) -> Drrt:
        """The topology now."""
        return self._state.snapshot(time.time())

    def not_back(self) -> tuple[SiteId, ...]:
        """Sites that were known before this control centre started and may still show up."""
        if time.monotonic() - self._started_s > BACK_WITHIN_S:
            return ()
        return tuple(SiteId(site) for site in sorted(self._known - set(self.snapshot().alive())))

    def key_of(self, site: SiteId) -> str | None:
        """The public key under which a site was first heard; none if it never was."""
        known = self._journal.get(_KEY_KIND, site)
        return None if known is None else known.decode()

    async def _on_alive(self, key: str, alive: bool) -> None:
        site = keys.site_of(key)
        going = self._going.pop(site, None)
        if going is not None:
            going.cancel()
        greeting = self._greeting.pop(site, None)
        if greeting is not None:
            greeting.cancel()
        if alive:
            self._greeting[site] = asyncio.create_task(self._greet(site))
        else:
            self._going[site] = asyncio.create_task(self._give_up(site))

    async def _greet(self, site: SiteId) -> None:
        while True:
            try:
                advert = await self._fabric.request(
                    keys.site_do(site, "describe"), b"", timeout_s=DESCRIBE_TIMEOUT_S
                )
                self._absorb(site, advert)
                self._state.appeared(site, time.time())
                self._came(site)
                return
            except (Refused, InvalidInput, Corrupt) as error:
                log.warning("%s is not let in: %s", site, error)
                return
            except DaitnError as error:
                log.info("%s does not describe itself yet: %s", site, error.problem)
            await asyncio.sleep(LOST_AFTER_S)

    async def _give_up(self, site: SiteId) -> None:
        await asyncio.sleep(LOST_AFTER_S)
        self._going.pop(site, None)
        self._state.lost(site, time.time())
        log.info("%s is gone", site)
        self._lost(site)

    async def _on_advert(self, key: str, payload: bytes) -> None:
        try:
            site = keys.site_of(key)
            self._absorb(site, payload)
            self._came(site)
        except DaitnError as error:
            log.warning("the advert at %s is not believed: %s", key, error)

    async def _on_sensed(self, key: str, payload: bytes) -> None:
        now_s = time.time()
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

    def _absorb(self, site: SiteId, payload: bytes) -> None:
        advert = decode(payload, Advert)
        check_advert(advert)
        descriptor = advert.descriptor
        if descriptor.site != site:
            raise Refused(f"{site} speaks in the name of {descriptor.site}", field="site")
        self._check_key(site, descriptor.public_key)
        self._state.absorb(descriptor, time.time())

    def _check_key(self, site: SiteId, public_key: str) -> None:
        known = self.key_of(site)
        if known is None:
            self._journal.put(_KEY_KIND, site, public_key.encode())
        elif known != public_key:
            raise Refused(
                f"{site} is known with another key",
                field="public_key",
                fix="restore the key in the site's state folder, or give the site a new name",
            )
