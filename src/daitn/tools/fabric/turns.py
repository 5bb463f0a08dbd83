"""Keeps one member's costly requests from crowding out those of others."""

from __future__ import annotations

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Final

from daitn.objects.errors import Refused
from daitn.tools import clock
from daitn.tools.fabric.caller import caller
from daitn.tools.fabric.protocol import Handler

__all__ = ["COSTS", "PER_MINUTE", "RequestRates", "TooOften"]

PER_MINUTE: Final = 120
COSTS: Final[Mapping[str, int]] = {
    "submit": 3,
    "assess": 1,
    "relevant": 1,
    "analysis": 1,
    "deploy": 3,
    "retire": 3,
    "certify": 1,
    "name": 1,
    "topology": 0,
    "placement": 0,
    "accounts": 0,
    "ledger": 0,
    "metered": 0,
    "travelled": 0,
}
"""Share of a minute's requests that each costly one counts as. A job stays in the journal. Requests
that are repeated often count as none, and wait for their turn."""
_WINDOW_S: Final = 60.0
_AT_ONCE: Final = 2
"""Concurrent requests of one member; its others wait, so that another member's single request is
served next or soon after."""


class TooOften(Refused):
    """A member exceeds its request rate."""

    def __init__(self, verb: str, wait_s: int) -> None:
        super().__init__(
            f"too many requests per minute: {verb} must wait",
            field="sender",
            fix=f"ask again in {wait_s} s",
        )
        self.wait_s = wait_s


class RequestRates:
    """Requests of each member: this many per minute, and a few at a time. The rate is a generic
    cell rate algorithm (ITU-T I.371): a minute's requests may come at once."""

    def __init__(
        self, per_minute: int = PER_MINUTE, *, now_s: Callable[[], float] = clock.elapsed_s
    ) -> None:
        self._each_s = _WINDOW_S / per_minute
        self._now_s = now_s
        self._due_s: dict[str, float] = {}
        """By public key: when all requests would be done at the rate."""
        self.refused: Counter[str] = Counter()
        """Requests refused by rate, by verb."""
        self._at_once: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(_AT_ONCE)
        )

    def allow(self, per_minute: int) -> None:
        """Change the rate of later requests."""
        self._each_s = _WINDOW_S / per_minute

    def limited(self, verb: str, handler: Handler) -> Handler:
        """The handler, with limits on each member's rate and concurrency.

        Unchanged for a verb that is not costly. A fabric without signatures has no members.
        """
        cost = COSTS.get(verb)
        if cost is None:
            return handler

        async def handle(key: str, payload: bytes) -> bytes:
            member = caller()
            if member is None:
                return await handler(key, payload)
            self._spend(member.public_key, cost, verb)
            async with self._at_once[member.public_key]:
                return await handler(key, payload)

        return handle

    def _spend(self, who: str, cost: int, verb: str) -> None:
        now_s = self._now_s()
        due_s = max(now_s, self._due_s.get(who, now_s)) + cost * self._each_s
        wait_s = due_s - now_s - _WINDOW_S
        if wait_s > 0:
            self.refused[verb] += 1
            raise TooOften(verb, math.ceil(wait_s))
        self._due_s[who] = due_s
