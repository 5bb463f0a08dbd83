"""Several control centres with one database: a process is a standby, leads, and becomes a standby
again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from daitn.center.config import CenterConfig
from daitn.center.database_owner import claim_database
from daitn.cli.interrupts import retried, until
from daitn.objects.errors import DaitnError
from daitn.tools.journal.leadership import Leadership, LeadershipTurn
from daitn.tools.journal.protocol import failed_storage

__all__ = ["take_turns"]

log = logging.getLogger(__name__)

_LOOK_S = 0.1
_DATABASE_AGAIN_S = 1.0


async def take_turns(
    center: CenterConfig,
    stopping: asyncio.Event,
    serve: Callable[[LeadershipTurn, asyncio.Event], Awaitable[None]],
) -> None:
    """Call `serve` whenever this control centre leads, until asked to stop.

    `serve` returns soon after its event is set: when it leads no more, or is asked to stop. Until
    then this process has no session on the fabric, and nobody is answered. Raises as `Leadership`
    does, except while the database is away.
    """
    leadership = await retried(
        lambda: asyncio.to_thread(_candidate, center),
        _DATABASE_AGAIN_S,
        stopping,
    )
    if leadership is None:
        return
    leadership.start()
    log.info("%s stands by, ready to take over", center.replica)
    try:
        while not stopping.is_set():
            turn = leadership.turn()
            if turn is None:
                await until(stopping, asyncio.sleep(_LOOK_S))
                continue
            await _lead(turn, stopping, serve)
            log.info("%s leads no more", center.replica)
    finally:
        await asyncio.to_thread(leadership.close)


def _candidate(center: CenterConfig) -> Leadership:
    claim_database(center)
    return Leadership(center.database, center.replica, center.listen)


async def _lead(
    turn: LeadershipTurn,
    stopping: asyncio.Event,
    serve: Callable[[LeadershipTurn, asyncio.Event], Awaitable[None]],
) -> None:
    ending = asyncio.Event()
    watching = asyncio.create_task(_watch(turn, stopping, ending), name="leadership")
    try:
        await serve(turn, ending)
    except DaitnError as error:
        if not failed_storage(error):
            raise
        log.warning("it stands by again: %s", error)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _watch(turn: LeadershipTurn, stopping: asyncio.Event, ending: asyncio.Event) -> None:
    while turn.term.holds and not stopping.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await stopping.wait()
    ending.set()
