"""What the control centre advises forwarders to do, told again and again.

In a hierarchy of control centres a domain's centre listens to the root's: what its own operator did
not decide, the root decides.
"""

from __future__ import annotations

import asyncio
import logging

from daitn.objects.errors import DaitnError
from daitn.objects.intents import Preference
from daitn.objects.steering import Advice, Steer
from daitn.objects.wire import decode, encode
from daitn.steering.scoring import STEERING
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric, Registration
from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.fabric.zenoh import ZenohFabric, open_zenoh
from daitn.tools.journal.protocol import Journal

__all__ = ["Advisor"]

log = logging.getLogger(__name__)

TOLD_EVERY_S = 1.0
ROOT_RETRY_S = 5.0
_KIND, _NAME = "advice", "own"


class Advisor:
    """Keeps the operator's advice in the journal, and tells it together with the root's."""

    def __init__(self, fabric: Fabric, journal: Journal, root: FabricSettings | None) -> None:
        """`root`: how the root control centre is reached; None: this is one."""
        self._fabric = fabric
        self._journal = journal
        self._root = root
        kept = journal.get(_KIND, _NAME)
        self._own = decode(kept, Advice) if kept is not None else Advice(version=0)
        self._roots = Advice(version=0)
        self._tasks: list[asyncio.Task[None]] = []
        self._above: ZenohFabric | None = None
        self._heard: Registration | None = None

    def start(self) -> None:
        """Tell, and listen to the root."""
        self._tasks.append(asyncio.create_task(self._tell_for_ever(), name="advice"))
        if self._root is not None:
            self._tasks.append(asyncio.create_task(self._listen(), name="root's advice"))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._heard is not None:
            await self._heard.close()
        if self._above is not None:
            await self._above.close()

    @property
    def advice(self) -> Advice:
        """The operator's, over the root's."""
        return Advice(
            version=self._own.version + self._roots.version,
            mode=self._own.mode or self._roots.mode,
            prefer={**self._roots.prefer, **self._own.prefer},
        )

    async def on_steer(self, key: str, payload: bytes) -> bytes:
        """`Steer` -> `Advice`: change what forwarders are advised to do; an empty `Steer` only
        asks.

        Raises `InvalidInput` for a scorer that there is not.
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
            self._own = Advice(
                version=self._own.version + 1,
                mode=steer.mode or before.mode,
                prefer=before.prefer if steer.prefer is None else steer.prefer,
            )
            self._journal.put(_KIND, _NAME, encode(self._own))
            await self._tell()
        return encode(self.advice)

    async def _tell(self) -> None:
        try:
            await self._fabric.publish(keys.center_advice(), encode(self.advice))
        except DaitnError as error:
            log.warning("the advice is not heard: %s", error)

    async def _tell_for_ever(self) -> None:
        while True:
            await self._tell()
            await asyncio.sleep(TOLD_EVERY_S)

    async def _listen(self) -> None:
        assert self._root is not None
        while self._heard is None:
            try:
                self._above = await open_zenoh(self._root)
                self._heard = await self._above.subscribe(keys.center_advice(), self._on_root)
            except DaitnError as error:
                log.info("the root control centre is not there: %s", error)
                await asyncio.sleep(ROOT_RETRY_S)

    async def _on_root(self, key: str, payload: bytes) -> None:
        try:
            heard = decode(payload, Advice)
        except DaitnError as error:
            log.warning("the root's advice is not understood: %s", error)
            return
        if heard != self._roots:
            self._roots = heard
            await self._tell()
