"""States to the control centre what was counted, until it is acknowledged."""

from __future__ import annotations

import asyncio
import logging

from daitn.identity.keys import SigningKey
from daitn.identity.signing import sign_usage
from daitn.node.usage.counts import UsageCounts
from daitn.objects.errors import DaitnError, InvalidInput, StorageFull
from daitn.objects.usage import UsageReceipt
from daitn.objects.wire import decode, encode
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric

__all__ = ["Stating"]

log = logging.getLogger(__name__)

_TIMEOUT_S = 10.0


class Stating:
    """Sends the statements of one gateway or facility, one at a time."""

    def __init__(
        self, fabric: Fabric, key: SigningKey, counts: UsageCounts, every_s: float
    ) -> None:
        self._fabric = fabric
        self._key = key
        self._counts = counts
        self.every_s = every_s
        self._turn = asyncio.Lock()

    async def state(self) -> None:
        """Keep all counts, and state what is new. What is not acknowledged is stated again."""
        async with self._turn:
            if self._counts.is_said:
                return
            statement, counts, generation = self._counts.begin_statement()
            try:
                await asyncio.to_thread(self._counts.keep, counts, generation)
            except StorageFull as error:
                log.error("what was counted is not stated for now: %s", error)
                return
            if not statement.rows and not statement.hosted:
                return
            try:
                signed = encode(sign_usage(statement, self._key))
                key = keys.center_do("usage")
                answer = await self._fabric.request(key, signed, timeout_s=_TIMEOUT_S)
                self._counts.acknowledged(statement, decode(answer, UsageReceipt))
            except InvalidInput as error:
                if error.field == "series":
                    self._counts.refused()
                else:
                    log.error("the control centre does not take what was counted: %s", error)
            except DaitnError as error:
                log.info("what was counted is stated later: %s", error.problem)
