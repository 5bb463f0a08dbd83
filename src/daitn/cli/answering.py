"""Connects to the control centre, of several to the one that answers: only the leader listens.

All are tried at the same time. One that stands still takes connections and says nothing, so trying
one after the other would wait for it. The only one may be starting or busy, and gets time for both.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

import msgspec

from daitn.cli.identity import tls_folder
from daitn.objects.addresses import place_of
from daitn.objects.errors import DaitnError, Unreachable
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Carrier
from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.fabric.zenoh import ZenohFabric, open_zenoh

__all__ = ["answering_url", "first_opened"]

T = TypeVar("T")

CENTER_FIELD: Final = "--center (DAITN_CENTER)"
_OF_SEVERAL: Final = "of several that take turns name all, with commas"
_LISTENS_WITHIN_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.1
_ANSWERS_WITHIN_S: Final = 5.0
"""With several control centres: one that takes longer than this has lost its leadership."""
_BUSY_WITHIN_S: Final = 15.0


async def first_opened(settings: FabricSettings) -> ZenohFabric:
    """The session of a client with whichever of its endpoints answers first; it continues with the
    others when that one is lost. Raises like `open_zenoh`."""

    async def opened(first: str) -> ZenohFabric:
        others = (endpoint for endpoint in settings.connect if endpoint != first)
        ordered = msgspec.structs.replace(settings, connect=(first, *others))
        alone = msgspec.structs.replace(settings, connect=(first,))
        await _listens(first)
        probe = await _opened(alone, _ANSWERS_WITHIN_S)
        try:
            await _answers(probe)
        finally:
            await probe.close()
        return await _opened(ordered, _ANSWERS_WITHIN_S)

    if len(settings.connect) == 1:
        await _comes_to_listen(settings.connect[0])
        return await _opened(settings, _BUSY_WITHIN_S)
    return await _first([opened(endpoint) for endpoint in settings.connect], ZenohFabric.close)


async def _opened(settings: FabricSettings, timeout_s: float) -> ZenohFabric:
    try:
        return await open_zenoh(settings, connect_timeout_s=timeout_s)
    except Unreachable as error:
        raise Unreachable(error.problem, field=CENTER_FIELD, fix=error.fix) from None


async def _answers(carrier: Carrier) -> None:
    """Raise `Unreachable` unless a control centre serves there: a former leader may not have closed
    its session yet. Its refusal of an unsigned request is enough."""
    try:
        await carrier.request(keys.center_do("network"), b"", timeout_s=_ANSWERS_WITHIN_S)
    except Unreachable:
        raise
    except DaitnError:
        return


async def _comes_to_listen(endpoint: str) -> None:
    """Wait for somebody who listens: it may be starting. Raises `Unreachable`."""
    until_s = time.monotonic() + _LISTENS_WITHIN_S
    while True:
        try:
            return await _listens(endpoint)
        except Unreachable:
            if time.monotonic() >= until_s:
                raise
        await asyncio.sleep(_LOOK_EVERY_S)


async def _listens(endpoint: str) -> None:
    """Raise `Unreachable` at once if nobody listens: Zenoh would keep trying on its thread, for
    which a command waits at its end."""
    try:
        async with asyncio.timeout(_LISTENS_WITHIN_S):
            _, writer = await asyncio.open_connection(*place_of(endpoint))
    except (OSError, UnicodeError) as error:  # The latter for names that no host has.
        why = getattr(error, "strerror", "") or str(error) or "no answer"
        raise Unreachable(
            f"cannot reach the control centre at {endpoint}: {why}",
            field=CENTER_FIELD,
            fix="check that it is running, that the endpoint is right and that no firewall blocks "
            f"it; {_OF_SEVERAL}",
        ) from None
    writer.close()


async def answering_url(urls: str) -> str:
    """The first that answers of several URLs of control centres' APIs, separated by commas. Raises
    `Unreachable` if none does."""
    # Imported here, because it would delay every other command by half a second.
    from daitn.client import AsyncClient

    async def answers(url: str) -> str:
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN_S):
                async with AsyncClient(url, tls=tls_folder(urls)) as stranger:
                    await stranger.session()
        except TimeoutError:
            fix = f"check that it runs; {_OF_SEVERAL}"
            raise Unreachable(f"{url} does not answer", field=CENTER_FIELD, fix=fix) from None
        return url

    if "," not in urls:
        return urls
    return await _first([answers(url) for url in urls.split(",")], _nothing)


async def _first(
    tries: Sequence[Coroutine[Any, Any, T]], drop: Callable[[T], Awaitable[None]]
) -> T:
    """The result of the first that succeeds; the others are cancelled and dropped. Raises the first
    error if all fail."""
    tasks = [asyncio.create_task(one) for one in tries]
    found: list[T] = []
    failed: list[DaitnError] = []
    try:
        for ended in asyncio.as_completed(tasks):
            try:
                found.append(await ended)
                return found[0]
            except DaitnError as error:
                failed.append(error)
        raise failed[0]
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(outcome, BaseException) and outcome not in found:
                await drop(outcome)


async def _nothing(url: str) -> None:
    """A URL needs no closing."""
