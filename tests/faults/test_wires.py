"""Links of the harness hold what real links promise: see `daitn.tools.adjacency.protocol`."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import Any

from tests.faults.steering import Wires
from tests.faults.virtual import Machine, VirtualLoop


class Ports:
    """Those of `sockets`, with a cut on demand."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.rng = random.Random(0)
        self.cut = False

    def delay_s(self, sender: Machine, receiver: Machine) -> float | None:
        return None if self.cut else 0.003

    def doubles(self, sender: Machine, receiver: Machine) -> bool:
        return False


def test_a_link_that_lost_a_message_goes_down_however_short_the_cut() -> None:
    loop = VirtualLoop(random.Random(0))
    ports: Any = Ports(loop)
    wires, events, ends = Wires(ports, (("a", "b"),)), list[str](), dict[str, Any]()

    async def play() -> None:
        for name in ("a", "b"):
            machine = Machine(name, loop)
            neighbours: Any = SimpleNamespace(
                up=lambda other, cost_s, name=name: events.append(f"{name}: {other} up"),
                down=lambda other, name=name: events.append(f"{name}: {other} down"),
                frames=lambda other, got, name=name: events.append(f"{name}: {got[0].decode()}"),
            )
            opened = loop.create_task(
                wires._open(None, neighbours, None), context=machine.context()
            )
            ends[name] = await opened
        looking = loop.create_task(wires.look())
        await asyncio.sleep(5.0)
        ports.cut = True
        ends["a"].send("b", b"lost")
        ports.cut = False
        await asyncio.sleep(5.0)
        ends["a"].send("b", b"carried")
        await asyncio.sleep(1.0)
        looking.cancel()

    loop.run_until_complete(play())

    both_up = ["a: b up", "b: a up"]
    assert events == [*both_up, "a: b down", "b: a down", *both_up, "b: carried"]
