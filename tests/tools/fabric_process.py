"""A process on the fabric, for tests to start, command over its standard input, and kill.

Arguments: a name and `FabricSettings` as JSON. It prints what it listens on, shows its token,
echoes at its key, and then answers each line `KEY PAYLOAD` with what it got from that key.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

from daitn.objects.errors import DaitnError
from daitn.objects.identifiers import SiteId
from daitn.tools.fabric import keys
from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.fabric.zenoh import open_zenoh


async def echo(key: str, payload: bytes) -> bytes:
    return payload


async def main() -> None:
    site = SiteId(sys.argv[1])
    fabric = await open_zenoh(msgspec.json.decode(sys.argv[2], type=FabricSettings))
    await fabric.serve(keys.site_echo(site), echo)
    await fabric.announce(keys.site_alive(site, "1"))
    print(*fabric.endpoints, flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        key, _, payload = line.strip().partition(" ")
        try:
            answer = await fabric.request(key, payload.encode(), timeout_s=5)
            print("got", answer.decode(), flush=True)
        except DaitnError as error:
            print(type(error).__name__, error.problem, flush=True)
    await fabric.close()


asyncio.run(main())
