"""Reports the counts to the control centre until they are acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import msgspec

from daitn.identity.keys import SigningKey
from daitn.identity.signing import sign_usage
from daitn.node.usage.counts import UsageCounts
from daitn.objects.errors import DaitnError, InvalidInput, StorageFull
from daitn.objects.usage import KeySpent, UsageReceipt
from daitn.objects.wire import decode, encode
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric

__all__ = ["Stating"]

log = logging.getLogger(__name__)

_TIMEOUT_S = 10.0
_AT_LEAST_S = 0.5
"""Minimum interval between statements."""


class Stating:
    """Sends the statements of one gateway or facility, one at a time."""

    def __init__(
        self, fabric: Fabric, key: SigningKey, counts: UsageCounts, every_s: float
    ) -> None:
        self._fabric = fabric
        self._key = key
        self._counts = counts
        self._every_s = every_s
        self._turn = asyncio.Lock()

    async def due(self) -> None:
        """Return when a statement is due, at once if a key's remaining budget depends on it."""
        at_least_s = min(_AT_LEAST_S, self._every_s)
        await asyncio.sleep(at_least_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._every_s - at_least_s):
                await self._counts.shared.hurry.wait()

    async def state(self) -> None:
        """Store all counts, and report what is new. Unacknowledged counts are reported again."""
        async with self._turn:
            shared = self._counts.shared
            if self._counts.is_stated and shared.is_stated:
                return
            statement, counts, generation = self._counts.begin_statement()
            try:
                await asyncio.to_thread(self._counts.keep, counts, generation)
            except StorageFull as error:
                log.error("what was counted is not stated for now: %s", error)
                return
            of_keys = shared.begin(self._spent)
            if not statement.rows and not statement.hosted and not of_keys:
                return
            try:
                signed = msgspec.structs.replace(sign_usage(statement, self._key), keys=of_keys)
                key = keys.center_do("usage")
                answer = await self._fabric.request(key, encode(signed), timeout_s=_TIMEOUT_S)
                receipt = decode(answer, UsageReceipt)
                self._counts.acknowledged(statement, receipt)
                shared.acknowledge(of_keys, receipt.keys, self._spent)
            except InvalidInput as error:
                if error.field == "series":
                    self._counts.refused()
                else:
                    log.error("the control centre does not take what was counted: %s", error)
            except DaitnError as error:
                log.info("what was counted is stated later: %s", error.problem)

    def _spent(self, key: str) -> KeySpent:
        return self._counts.spent(key, clock.wall_s())
