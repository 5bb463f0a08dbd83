"""What signatures cost: `python -m benchmarks.signed_fabric [--json]`.

Two processes communicate over loopback. Requests of several sizes are echoed, plain and signed in
turns, over the same two sessions, and the medians are compared. A signed request takes two
signatures, two checks, and BLAKE3 of both payloads at both ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import subprocess
import sys
import time

from rich.console import Console
from rich.table import Table

from daitn.identity.keys import SigningKey
from daitn.objects.errors import Unreachable
from daitn.objects.identifiers import SiteId
from daitn.objects.roster import Kind, Member
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric
from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.fabric.signed import SignedFabric
from daitn.tools.fabric.zenoh import open_zenoh

EAST, WEST = SiteId("east"), SiteId("west")
PLAIN, SIGNED = "daitn/plain/echo", keys.site_echo(EAST)
SIZES = {0: 1000, 1024: 1000, 65_536: 500, 1 << 20: 200}
"""Rounds, by payload in bytes."""


def member(site: SiteId, public: str) -> Member:
    return Member(name=site, kind=Kind.SITE, public_key=public, until_s=math.inf)


async def echo(key: str, payload: bytes) -> bytes:
    return payload


async def serve(asker: str) -> None:
    """The other process: echo plain and signed requests until standard input ends."""
    carrier = await open_zenoh(FabricSettings(mode="router", listen=("tcp/127.0.0.1:0",)))
    key = SigningKey.generate()
    members = {key.public: member(EAST, key.public), asker: member(WEST, asker)}
    await carrier.serve(PLAIN, echo)
    await SignedFabric(carrier, key, "bench", lambda: members).serve(SIGNED, echo)
    print(carrier.endpoints[0], key.public, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await carrier.close()


async def took_s(fabric: Fabric, key: str, payload: bytes) -> float:
    began_s = time.perf_counter()
    await fabric.request(key, payload, timeout_s=10)
    return time.perf_counter() - began_s


async def ready(fabric: Fabric, key: str) -> None:
    while True:
        try:
            await fabric.request(key, b"", timeout_s=10)
        except Unreachable:
            await asyncio.sleep(0.01)
        else:
            return


async def measured(endpoint: str, public: str, key: SigningKey) -> dict[int, tuple[float, float]]:
    """Median seconds of a plain and of a signed request to the other process, by size."""
    carrier = await open_zenoh(FabricSettings(mode="peer", connect=(endpoint,)))
    members = {key.public: member(WEST, key.public), public: member(EAST, public)}
    fabric = SignedFabric(carrier, key, "bench", lambda: members)
    await ready(carrier, PLAIN)
    await ready(fabric, SIGNED)
    found = {}
    for size, rounds in SIZES.items():
        payload = b"x" * size
        plain, signed = [], []
        for _ in range(rounds):
            plain.append(await took_s(carrier, PLAIN, payload))
            signed.append(await took_s(fabric, SIGNED, payload))
        found[size] = (statistics.median(plain), statistics.median(signed))
    await carrier.close()
    return found


def compared() -> dict[int, tuple[float, float]]:
    """The same, with another process of its own."""
    key = SigningKey.generate()
    command = [sys.executable, "-m", "benchmarks.signed_fabric", "--serve", key.public]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    endpoint, public = process.stdout.readline().split()
    try:
        return asyncio.run(measured(endpoint, public, key))
    finally:
        process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--serve", metavar="KEY", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve))
        return
    found = compared()
    if options.json:
        print(json.dumps({size: {"plain_s": p, "signed_s": s} for size, (p, s) in found.items()}))
        return
    table = Table("bytes", "plain ms", "signed ms", "added ms")
    for size, (plain, signed) in found.items():
        shown = (f"{1000 * value:.2f}" for value in (plain, signed, signed - plain))
        table.add_row(f"{size:,}", *shown)
    Console().print(table)


if __name__ == "__main__":
    main()
