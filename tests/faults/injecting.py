"""Has go wrong what a run has drawn, and mends it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daitn.objects.identifiers import CENTER_SITE
from tests.faults.network import Weather
from tests.faults.virtual import Machine
from tests.faults.weather import Fault
from tests.faults.world import World

__all__ = ["Injector"]


class Injector:
    """The run's bad luck."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.in_vain: list[Fault] = []
        """Faults of machines that were down already."""
        self._world = world
        self._rng = rng
        self._later: list[asyncio.Future[None]] = []
        self._cuts: list[tuple[str, str]] = []
        self._calm = False

    async def go_wrong(self, faults: tuple[Fault, ...], began_s: float) -> None:
        """Let each begin at its time."""
        for fault in faults:
            await asyncio.sleep(max(0.0, began_s + fault.at_s - self._world.loop.time()))
            self._begin(fault)

    async def mend(self) -> None:
        """Let everything run, and well, from now on."""
        self._calm = True
        for ending in self._later:
            ending.cancel()
        world, network = self._world, self._world.network
        network._weather.clear()
        for one, other in self._cuts:
            network.mend(one, other)
        world.database.away = world.database.mute = False
        world.lab.dies = world.lab.quotes = 0.0
        world.lab.sums.leaving.clear()
        world.database.cut.clear()
        for name in (*world.centers, *world.nodes):
            machine = world.machines.get(name)
            if machine is None:
                world.start(name)
                continue
            machine.ahead_s = 0.0
            machine.full = False
            if machine.stopped:
                world.go_on(name)

    def _begin(self, fault: Fault) -> None:
        world = self._world
        machine = world.machines.get(fault.where)
        if machine is None:
            self.in_vain.append(fault)
            return
        match fault.kind:
            case "kill":
                world.kill(fault.where, fault.size)
                ahead_s = self._rng.choice((0.0, 0.0, 0.0, -3600.0, -60.0, 60.0))
                self._ends(fault, lambda: world.start_again(fault.where, ahead_s))
            case "stop":
                world.stop(fault.where)
                self._ends(fault, lambda: self._go_on(machine))
            case "cut":
                self._cut(fault, fault.other)
            case "isolate":
                for other in (*world.centers, *world.nodes):
                    if other != fault.where:
                        self._cut(fault, other)
            case "leave":
                world.lab.sums.leaving[fault.where] = fault.other
            case "full disk":
                machine.full = True
                self._ends(fault, lambda: setattr(machine, "full", False))
            case "clock":
                machine.ahead_s += fault.size
            case "database away" | "database mute":
                what = fault.kind.removeprefix("database ")
                setattr(world.database, what, True)
                self._ends(fault, lambda: setattr(world.database, what, False))
            case "database cut":
                where = fault.where if fault.where in world.centers else CENTER_SITE
                world.database.cut.add(where)
                self._ends(fault, lambda: world.database.cut.discard(where))
            case "dying workers" | "quoting recipes":
                what = "dies" if fault.kind == "dying workers" else "quotes"
                setattr(world.lab, what, fault.size)
                self._ends(fault, lambda: setattr(world.lab, what, 0.0))
            case "rotten chunk":
                self._rot(world.state(fault.where))
            case _:
                self._disturb(fault)

    def _disturb(self, fault: Fault) -> None:
        """A link's weather, in one direction where it is half open, else in both."""
        weather = {
            "half-open": Weather(loss=1.0),
            "slow": Weather(latency_s=fault.size),
            "lossy": Weather(loss=fault.size),
            "overtaking": Weather(spread=fault.size),
            "doubled": Weather(doubled=fault.size),
            "damaged": Weather(damaged=fault.size),
        }[fault.kind]
        network, ways = self._world.network, [(fault.where, fault.other)]
        if fault.kind != "half-open":
            ways.append((fault.other, fault.where))
        for way in ways:
            network.weather(*way, weather)

        def clear_up() -> None:
            for way in ways:
                network.weather(*way, None)

        self._ends(fault, clear_up)

    def _cut(self, fault: Fault, other: str) -> None:
        network, link = self._world.network, (fault.where, other)
        network.cut(*link)
        self._cuts.append(link)
        self._ends(fault, lambda: network.mend(*link))

    def _go_on(self, machine: Machine) -> None:
        if not machine.dead:
            self._world.go_on(machine.name)

    def _ends(self, fault: Fault, end: Callable[[], Any]) -> None:
        async def later() -> None:
            await asyncio.sleep(fault.lasts_s)
            end()

        self._later.append(asyncio.ensure_future(later()))

    def _rot(self, state: Path) -> None:
        """Turn over a bit of one of the blobs on a disk."""
        blobs = sorted((state / "models" / "blobs").glob("*/*"))
        if blobs:
            blob = self._rng.choice(blobs)
            data = bytearray(blob.read_bytes())
            if data:
                data[self._rng.randrange(len(data))] ^= 1
                blob.write_bytes(bytes(data))
