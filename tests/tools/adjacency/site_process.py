"""A site that sends every message back. Arguments: its name, an endpoint to listen on, neighbours,
and after how many seconds of silence one of them is down.

Prints where it listens, and runs until it is killed.
"""

from __future__ import annotations

import asyncio
import json
import sys

from daitn.objects.identifiers import SiteId
from daitn.tools.adjacency.settings import AdjacencySettings
from daitn.tools.adjacency.zenoh import ZenohAdjacency, open_adjacency


class Echo:
    adjacency: ZenohAdjacency

    def up(self, neighbour: SiteId, cost_s: float) -> None:
        pass

    def down(self, neighbour: SiteId) -> None:
        pass

    def cost(self, neighbour: SiteId, cost_s: float) -> None:
        pass

    def frames(self, neighbour: SiteId, messages: list[bytes]) -> None:
        for message in messages:
            self.adjacency.send(neighbour, message)


async def main(site: str, listen: str, neighbours: str, dead_s: str) -> None:
    echo = Echo()
    settings = AdjacencySettings(
        site=SiteId(site),
        listen=(listen,),
        neighbours={SiteId(name): tuple(ends) for name, ends in json.loads(neighbours).items()},
        dead_s=float(dead_s),
    )
    echo.adjacency = await open_adjacency(settings, echo)
    print(*echo.adjacency.endpoints, flush=True)
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
