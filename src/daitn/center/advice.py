"""Publishes the control centre's advice to forwarders, repeatedly.

In a hierarchy of control centres, a domain's centre follows the root's: the root decides what the
domain's operator leaves open.
"""

from __future__ import annotations

import asyncio
import logging
import time

from daitn.objects.errors import DaitnError
from daitn.objects.intents import Preference
from daitn.objects.steering import ADVICE_LASTS_S, Advice, Steer
from daitn.objects.wire import decode, encode
from daitn.steering.scoring import STEERING
from daitn.tools.fabric import keys
from daitn.tools.fabric.identity import Identity
from daitn.tools.fabric.protocol import Fabric, Registration
from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.fabric.zenoh import open_zenoh
from daitn.tools.journal.protocol import Journal
from daitn.tools.tasks import Tasks

__all__ = ["Advisor"]

log = logging.getLogger(__name__)

PUBLISH_EVERY_S = 1.0
ROOT_RETRY_S = 5.0
_KIND, _NAME = "advice", "own"


class Advisor:
    """Stores the operator's advice in the journal and publishes it together with the root's."""

    def __init__(
        self,
        fabric: Fabric,
        journal: Journal,
        root: FabricSettings | None,
        identity: Identity | None = None,
    ) -> None:
        """`root`: how to reach the root control centre; None if this is it. `identity`: see
        `ControlCenter`."""
        self._identity = identity
        self._fabric = fabric
        self._journal = journal
        self._root_settings = root
        stored = journal.get(_KIND, _NAME)
        self._own = decode(stored, Advice) if stored is not None else Advice(version=0)
        self._root_advice = Advice(version=0)
        self._root_advised_at_s = float("-inf")
        self._tasks = Tasks()
        self._root_fabric: Fabric | None = None
        self._subscription: Registration | None = None

    def start(self) -> None:
        """Start to publish, and to follow the root."""
        self._tasks.repeat(self._publish_regularly, "advice")
        if self._root_settings is not None:
            self._tasks.spawn(self._follow_root(), "root's advice")

    async def close(self) -> None:
        await self._tasks.close()
        if self._subscription is not None:
            await self._subscription.close()
        if self._root_fabric is not None:
            await self._root_fabric.close()

    @property
    def advice(self) -> Advice:
        """The operator's advice, completed by the root's.

        Silence of the root takes its advice back, as silence of this centre does at forwarders.
        """
        silent_s = time.monotonic() - self._root_advised_at_s
        root = self._root_advice if silent_s < ADVICE_LASTS_S else Advice(version=0)
        return Advice(
            version=self._own.version + self._root_advice.version,
            mode=self._own.mode or root.mode,
            prefer={**root.prefer, **self._own.prefer},
        )

    async def on_steer(self, key: str, payload: bytes) -> bytes:
        """`Steer` -> `Advice`: change the advice to forwarders; an empty `Steer` only reads it.

        Raises `InvalidInput` for an unknown scorer.
        """
        steer = decode(payload, Steer)
        STEERING.weighted(
            tuple(
                Preference(scorer=name, weight=weight)
                for name, weight in (steer.prefer or {}).items()
            )
        )
        if steer != Steer():
            before = Advice(version=0) if steer.reset else self._own
            own = Advice(
                version=self._own.version + 1,
                mode=steer.mode or before.mode,
                prefer=before.prefer if steer.prefer is None else steer.prefer,
            )
            self._journal.put(_KIND, _NAME, encode(own))
            self._own = own
            await self._publish()
        return encode(self.advice)

    async def _publish(self) -> None:
        try:
            await self._fabric.publish(keys.center_advice(), encode(self.advice))
        except DaitnError as error:
            log.warning("the advice was not published: %s", error)

    async def _publish_regularly(self) -> None:
        await self._publish()
        await asyncio.sleep(PUBLISH_EVERY_S)

    async def _follow_root(self) -> None:
        assert self._root_settings is not None
        while self._subscription is None:
            try:
                carrier = await open_zenoh(self._root_settings)
                self._root_fabric = self._identity.signs(carrier) if self._identity else carrier
                self._subscription = await self._root_fabric.subscribe(
                    keys.center_advice(), self._on_root
                )
            except DaitnError as error:
                log.info("the root control centre cannot be reached: %s", error)
                await asyncio.sleep(ROOT_RETRY_S)

    async def _on_root(self, key: str, payload: bytes) -> None:
        try:
            received = decode(payload, Advice)
        except DaitnError as error:
            log.warning("the root's advice cannot be read: %s", error)
            return
        self._root_advised_at_s = time.monotonic()
        if received != self._root_advice:
            self._root_advice = received
            await self._publish()
