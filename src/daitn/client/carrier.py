"""The part of the fabric that a control centre's API forwards, for client commands.

Requests and answers are those of the fabric, signed end to end by the fabric around this carrier:
the control centre, or anyone in between, can read them, but neither change nor make them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, NoReturn, TypeVar

from daitn.client.asynchronous import AsyncClient
from daitn.objects.errors import InvalidInput, NotFound
from daitn.tools.fabric import keys
from daitn.tools.fabric.bulk import Taken
from daitn.tools.fabric.delivery import unserved
from daitn.tools.fabric.protocol import Accepts, Alive, Give, Handler, Message, Registration

__all__ = ["HttpCarrier"]

T = TypeVar("T")

_LONGEST_S: Final = 600.0


class HttpCarrier:
    """A `Carrier` that can query and publish rosters. Nothing can be sent to its holder: everything
    else raises `InvalidInput`."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def publish(self, key: str, payload: bytes) -> None:
        """Publish a roster; no effect in a network without one."""
        if key != keys.ROSTER:
            _impossible("publishes")
        try:
            await self._client.relay(payload, key)
        except NotFound:
            return

    async def request(
        self, key: str, payload: bytes, *, timeout_s: float, accepts: Accepts | None = None
    ) -> bytes:
        answer = await self._client.relay(payload, key, within_s=min(timeout_s, _LONGEST_S))
        if accepts is not None and not accepts(answer):
            raise unserved(key)
        return answer

    async def request_bulk(
        self, key: str, payload: bytes, *, timeout_s: float, take: Callable[[bytes], T]
    ) -> T:
        answer = await self.request(key, payload, timeout_s=timeout_s)
        taken = Taken(take)
        asyncio.get_running_loop().run_in_executor(None, taken.take, partial(bytes, answer))
        return await taken.outcome()

    async def subscribe(self, pattern: str, message: Message) -> Registration:
        _impossible("listens")

    async def serve(self, key: str, handler: Handler) -> Registration:
        _impossible("answers")

    async def serve_bulk(self, key: str, give: Give) -> Registration:
        _impossible("answers")

    async def announce(self, key: str) -> Registration:
        _impossible("announces itself")

    async def watch(self, pattern: str, alive: Alive) -> Registration:
        _impossible("listens")

    async def close(self) -> None:
        self._client.close()


def _impossible(what: str) -> NoReturn:
    raise InvalidInput(
        f"this command {what} on the fabric, but the API of a control centre accepts only requests",
        field="--center (DAITN_CENTER)",
        fix="name the control centre's Zenoh endpoint, like tls/control.example.org:7447",
    )
