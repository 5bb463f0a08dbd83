"""The advice of a domain's control centre, with the root's."""

from __future__ import annotations

import asyncio

import pytest

from daitn.center import advice as module
from daitn.center.advice import Advisor
from daitn.objects.steering import ADVICE_LASTS_S, Advice, ControlMode, Steer
from daitn.objects.wire import decode, encode
from daitn.tools.fabric import keys
from daitn.tools.fabric.memory import MemoryNetwork
from daitn.tools.fabric.protocol import Fabric
from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.journal.memory import MemoryJournal

DAY = {"accuracy": 1.0, "cost": 2.0}


class _Clock:
    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


async def test_the_root_decides_what_the_domain_leaves_open_until_it_falls_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    roots, domain, clock = MemoryNetwork(), MemoryNetwork(), _Clock()

    async def reach(settings: FabricSettings) -> Fabric:
        return roots.open("domain's centre")

    monkeypatch.setattr(module, "open_zenoh", reach)
    monkeypatch.setattr("daitn.center.advice.time", clock)
    root = roots.open("root")
    advisor = Advisor(
        domain.open("centre"), MemoryJournal(), FabricSettings(connect=("tcp/127.0.0.1:7447",))
    )
    advisor.start()
    try:
        of_root = Advice(version=3, mode=ControlMode.HIERARCHICAL, prefer={"cost": 2.0})

        while advisor.advice.mode is None:  # It subscribes at some moment.
            await root.publish(keys.center_advice(), encode(of_root))
            await asyncio.sleep(0.005)
        own = Steer(prefer={"accuracy": 1.0})
        answer = decode(await advisor.on_steer("", encode(own)), Advice)
        assert (answer.mode, answer.prefer) == (ControlMode.HIERARCHICAL, DAY)

        clock.now_s = ADVICE_LASTS_S + 1.0
        assert advisor.advice.mode is None
        assert advisor.advice.prefer == {"accuracy": 1.0}
        assert advisor.advice.version == answer.version, "a version never falls"
    finally:
        await advisor.close()
