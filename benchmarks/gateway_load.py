"""The load of `benchmarks.gateway`: closed loops, an open loop, vanishing clients, idle streams."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import statistics
import sys
import time
from typing import Any, NamedTuple

__all__ = [
    "KEY",
    "PLAIN",
    "ROUTED",
    "STREAMED",
    "Told",
    "idle_streams",
    "load",
    "open_load",
    "vanishing",
]

KEY = f"sk-{secrets.token_hex(32)}"
QUESTION = (
    "What are the treatments for asthma?\n\nA) rest\nB) inhalers\n\nAnswer with the letter only."
)
_CONSTRAINTS = {"topic": "medicine", "min_accuracy": 0.7}
_SLOWEST_S = 20.0
"""An answer that takes longer fails the benchmark."""


def request(model: str, **fields: Any) -> bytes:
    """A whole HTTP request."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 16,
        "temperature": 0,
        **fields,
    }
    sent = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: benchmark\r\n"
        f"authorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(sent)}\r\n\r\n"
    )
    return head.encode() + sent


PLAIN = request("m")
ROUTED = request("auto", daitn=_CONSTRAINTS)
STREAMED = request("auto", daitn=_CONSTRAINTS, stream=True)


class Told(NamedTuple):
    """What a load told."""

    per_s: float
    p50_s: float
    p99_s: float


class _Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, message: bytes) -> float:
        """Seconds that an answer took."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        began_s = time.perf_counter()
        writer.write(message)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 200 "), head
        if b"transfer-encoding: chunked" in head:
            size = -1
            while size:
                size = int(await reader.readline(), 16)
                await reader.readexactly(size + 2)
        else:
            size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(size)
        return time.perf_counter() - began_s

    async def vanish(self, message: bytes) -> None:
        """Ask, and leave before the answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        self._streams[1].write(message)
        await self._streams[1].drain()
        self.close()

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


async def load(
    port: int, message: bytes, connections: int, *, seconds: float = 1e9, most: int = sys.maxsize
) -> Told:
    """Each connection asks again as soon as it has its answer. `most`: requests of each."""
    took_s: list[float] = []
    began_s = time.perf_counter()
    until_s = began_s + seconds

    async def ask() -> None:
        client, left = _Client(port), most
        while left and time.perf_counter() < until_s:
            took_s.append(await client.ask(message))
            left -= 1
        client.close()

    await asyncio.gather(*(ask() for _ in range(connections)))
    return _told(took_s, time.perf_counter() - began_s)


async def open_load(port: int, message: bytes, per_s: float, seconds: float) -> Told:
    """Requests come at a rate, at random (Poisson), whether or not earlier ones have been answered.

    A closed loop slows down with what it measures, and so hides its slowest answers.
    """
    rng, idle, took_s = random.Random(0), list[_Client](), list[float]()

    async def ask() -> None:
        client = idle.pop() if idle else _Client(port)
        async with asyncio.timeout(_SLOWEST_S):
            took_s.append(await client.ask(message))
        idle.append(client)

    began_s = due_s = time.perf_counter()
    async with asyncio.TaskGroup() as asking:
        while due_s < began_s + seconds:
            due_s += rng.expovariate(per_s)
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            asking.create_task(ask())
    for client in idle:
        client.close()
    return _told(took_s, time.perf_counter() - began_s)


async def vanishing(port: int, message: bytes, connections: int, most: int, share: float) -> Told:
    """As `load`; a `share` of the requests is left by its client before the answer."""
    rng, took_s = random.Random(0), list[float]()
    began_s = time.perf_counter()

    async def ask() -> None:
        client = _Client(port)
        for _ in range(most):
            if rng.random() < share:
                await client.vanish(message)
            else:
                took_s.append(await client.ask(message))
        client.close()

    await asyncio.gather(*(ask() for _ in range(connections)))
    return _told(took_s, time.perf_counter() - began_s)


async def idle_streams(port: int, number: int) -> list[asyncio.StreamWriter]:
    """Streams that have said their first piece, and say no more."""
    opened: list[asyncio.StreamWriter] = []
    for _ in range(number):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(STREAMED)
        await reader.readuntil(b'"content"')
        opened.append(writer)
    return opened


def _told(took_s: list[float], seconds: float) -> Told:
    cuts = statistics.quantiles(took_s, n=100)
    return Told(len(took_s) / seconds, statistics.median(took_s), cuts[98])
