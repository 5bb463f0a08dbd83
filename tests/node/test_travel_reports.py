"""A home reports to the control centre what its travelling models used, until that has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from daitn.center.travels import TravelAccounts
from daitn.control.jobs.travelling import job_of
from daitn.identity.keys import SigningKey
from daitn.node.agents import accounts as accounts_module
from daitn.node.agents.accounts import TravelReports
from daitn.node.agents.store import AgentStore
from daitn.objects.accounts import LedgerQuestion
from daitn.objects.agents import Agent, DatedFact
from daitn.objects.errors import Refused
from daitn.objects.identifiers import SiteId
from daitn.objects.wire import decode
from daitn.tools.fabric import keys
from daitn.tools.fabric.memory import MemoryNetwork
from daitn.tools.journal.memory import MemoryJournal
from tests.control.jobs.world import KEY, KEYS, VERIFIERS, World
from tests.scenes.waiting import until

SITES: dict[str, SigningKey] = {**KEYS, **VERIFIERS}


class Center:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.journal = MemoryJournal()
        self.told: list[Agent] = []
        self.refuses = False
        self.let = asyncio.Event()
        """Set: refusals go out."""
        self._travels = TravelAccounts(
            self.journal, None, lambda site: SITES.get(site, KEY).public, lambda order: False
        )

    async def on_travelled(self, key: str, payload: bytes) -> bytes:
        self.told.append(decode(payload, Agent))
        if self.refuses:
            await self.let.wait()
            raise Refused("not so")
        return await self._travels.on_travelled(key, payload)

    @property
    def entries(self) -> int:
        return len(self.journal.ledger(LedgerQuestion()))


class Home:
    """Agents of a home, and their reports."""

    def __init__(self, network: MemoryNetwork, folder: Path) -> None:
        self.fabric = network.open("home")
        self.agents = AgentStore(folder / "ours")
        self.reports = TravelReports(self.fabric, self.agents, folder / "reported")
        self.reports.start()

    def has(self, agent: Agent) -> int:
        """What a home does with every report that it gets, and at its start."""
        self.agents.put(agent)
        job = job_of(agent)
        self.reports.note(agent, len(job.entries), ended=job.state.final)
        return len(job.entries)

    async def close(self) -> None:
        await self.reports.close()
        await self.fabric.close()


@asynccontextmanager
async def center(network: MemoryNetwork, known: Center) -> AsyncIterator[None]:
    fabric = network.open("center")
    await fabric.serve(keys.center_do("travelled"), known.on_travelled)
    try:
        yield
    finally:
        await fabric.close()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts_module, "EVERY_S", 0.1)
    monkeypatch.setattr(accounts_module, "_CHECK_EVERY_S", 0.02)


def walked(job: str = "qa-home-1") -> Agent:
    world = World(job=job)
    world.run()
    facts = tuple(DatedFact(at_s, event) for event, at_s in world.facts)
    return Agent(job=world.job.id, home=SiteId("home"), facts=facts)


def at(agent: Agent, facts: int) -> Agent:
    return msgspec.structs.replace(agent, facts=agent.facts[:facts])


async def test_what_a_model_used_reaches_the_ledger_whenever_a_control_centre_is_there(
    tmp_path: Path, often: None
) -> None:
    network, known, agent = MemoryNetwork(), Center(), walked()
    home = Home(network, tmp_path)
    try:
        home.has(at(agent, 1))
        async with center(network, known):
            await until(lambda: len(known.told) == 1)  # Its order is known as it sets out.
            assert known.entries == 0
        home.has(at(agent, len(agent.facts) // 2))
        whole = home.has(agent)
        await home.close()
        home = Home(network, tmp_path)
        home.has(agent)
        async with center(network, known):
            await until(lambda: known.entries == whole > 3)
            await until(lambda: not home.reports._waiting)
            home.has(agent)
            await home.close()
            home = Home(network, tmp_path)
            home.has(agent)
            told = len(known.told)
            home.has(at(walked("qa-home-2"), 1))
            await until(lambda: len(known.told) > told)
            assert [one.job for one in known.told[told:]] == ["qa-home-2"], "nothing is repeated"
            assert known.entries == whole
    finally:
        await home.close()


async def test_a_model_that_is_refused_is_reported_again_at_its_end(
    tmp_path: Path, often: None
) -> None:
    network, known, agent = MemoryNetwork(), Center(), walked()
    home = Home(network, tmp_path)
    known.refuses = True
    try:
        async with center(network, known):
            home.has(at(agent, 1))
            await until(lambda: len(known.told) == 1)
            whole = home.has(agent)  # Before the refusal is back.
            known.refuses = False
            known.let.set()
            await until(lambda: known.entries == whole)
            assert len(known.told) == 2
    finally:
        await home.close()
