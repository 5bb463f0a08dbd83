"""A control centre with its API, dashboard and metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

import msgspec

from daitn.center.config import ApiConfig, CenterConfig
from daitn.center.service import ControlCenter
from daitn.files.atomic import replace_file
from daitn.files.state_folder import CenterState
from daitn.oam.api.server import ApiService
from daitn.objects.default_addresses import API
from daitn.tools.http import served
from daitn.tools.monitoring.metrics import Sample
from daitn.tools.roster import LiveRoster

__all__ = ["Operated"]

log = logging.getLogger(__name__)


class Operated:
    """Starts and ends both."""

    def __init__(
        self, center: ControlCenter, config: CenterConfig, roster: LiveRoster | None
    ) -> None:
        self.center = center
        self._config = config
        self._roster = roster
        self.api: ApiService | None = None
        """Its API, once it listens; none if it has none."""

    @property
    def url(self) -> str:
        """URL of the API and the dashboard; empty means there are none."""
        return self.api.url if self.api else ""

    def measured(self) -> Iterable[Sample]:
        """Its samples for Prometheus."""
        yield from self.center.measured()
        if self.api is not None:
            yield from self.api.measured()

    async def start(self) -> None:
        await self.center.start()
        listen = self._config.api.listen
        if listen == "":
            return
        self.api = await served(listen, self._usual(), self._listening)
        if listen is None:
            address = self.api.address.encode()
            await asyncio.to_thread(replace_file, self._address, address)
        self.center.listen(self.api.job)
        self.center.api = self.api.url
        log.info("API and dashboard at %s", self.api.url)

    def reconfigure(self, config: CenterConfig) -> None:
        """See `ControlCenter`."""
        self._config = config
        self.center.reconfigure(config)

    async def drain(self) -> None:
        await self.center.drain()

    async def close(self) -> None:
        if self.api is not None:
            await self.api.close()
        await self.center.close()

    @property
    def _address(self) -> Path:
        return Path(self._config.state) / CenterState.API_ADDRESS

    def _usual(self) -> str:
        """Its last address, so that open pages continue after a restart."""
        try:
            return self._address.read_text(errors="replace")
        except FileNotFoundError:
            return API

    async def _listening(self, listen: str) -> ApiService:
        """The API, at an address. Raises `InvalidInput`."""
        config = self._config
        stated: ApiConfig = msgspec.structs.replace(config.api, listen=listen)
        api = ApiService(
            self.center, config.name, stated, self._roster, Path(config.state), config.tls
        )
        await api.start()
        return api
