"""A control centre with what people and programs see of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from daitn.center.config import ApiConfig, CenterConfig
from daitn.center.service import ControlCenter
from daitn.identity.grants import GrantBook
from daitn.oam.api.server import Api
from daitn.objects.addresses import is_loopback
from daitn.objects.errors import InvalidInput
from daitn.tools.http import read_address
from daitn.tools.monitoring.metrics import Sample

__all__ = ["Operated"]

log = logging.getLogger(__name__)

_USUAL: Final = "127.0.0.1:7448"
_ANY_PORT: Final = "127.0.0.1:0"


class Operated:
    """Starts and ends both."""

    def __init__(
        self, center: ControlCenter, config: CenterConfig, grants: GrantBook | None
    ) -> None:
        """Raises `InvalidInput` for an API that strangers could reach and nobody signs in to."""
        self.center = center
        self._config = config
        self._grants = grants
        self.api: Api | None = None
        """What it serves, once it listens; none: nothing."""
        listen = config.api.listen
        if listen and config.insecure and not _stays_here(listen):
            raise InvalidInput(
                f"without a roster, whoever reaches {listen} may do anything",
                field="api.listen",
                fix="listen at an address of this machine alone, such as 127.0.0.1:7448",
            )

    @property
    def url(self) -> str:
        """Of the API and the dashboard; empty: there are none."""
        return self.api.url if self.api else ""

    def measured(self) -> Iterable[Sample]:
        """What Prometheus is told."""
        return self.center.measured()

    async def start(self) -> None:
        await self.center.start()
        listen = self._config.api.listen
        if listen == "":
            return
        try:
            self.api = await self._listening(_USUAL if listen is None else listen)
        except InvalidInput:
            if listen is not None:
                raise
            self.api = await self._listening(_ANY_PORT)
            log.warning("%s is taken: the API listens elsewhere", _USUAL)
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

    async def _listening(self, listen: str) -> Api:
        """The API, at an address. Raises `InvalidInput`."""
        config = self._config
        stated: ApiConfig = msgspec.structs.replace(config.api, listen=listen)
        api = Api(self.center, config.name, stated, self._grants, Path(config.state), config.tls)
        await api.start()
        return api


def _stays_here(listen: str) -> bool:
    """Whether only this machine reaches an address."""
    with_scheme = listen if "://" in listen else f"http://{listen}"
    try:
        return is_loopback(read_address(with_scheme).host)
    except ValueError:
        return True  # The server says what is wrong with it.
