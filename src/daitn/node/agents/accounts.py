"""Reports the usage of a home's travelling models to the control centre, for its ledger."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from daitn.files.items import ItemStore
from daitn.node.agents.store import AgentStore
from daitn.objects.agents import Agent, AgentName, TravelReceipt
from daitn.objects.errors import Corrupt, DaitnError, InvalidInput, Refused
from daitn.objects.identifiers import JobId
from daitn.objects.wire import decode, encode
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric
from daitn.tools.tasks import Tasks

__all__ = ["TravelReports"]

log = logging.getLogger(__name__)

EVERY_S = 30.0
"""How often a travelling model is reported; one that has ended is reported at once. Also the pause
after no control centre answered."""
_REFUSED_S = 600.0
"""Pause in reporting a model after the control centre refused it: it may not know its owner yet."""
_CHECK_EVERY_S = 0.5
_TIMEOUT_S = 10.0


class _Reported(msgspec.Struct, frozen=True):
    """What the control centre knows about a model."""

    entries: int


@dataclass(frozen=True)
class _Waiting:
    job: JobId
    walker: int
    entries: int


class TravelReports:
    """Each model is reported when it sets out, which gives the control centre its order before any
    other site has it; then whenever there is more to pay. Unacknowledged reports are repeated
    indefinitely: without a control centre nothing is lost, and nothing else waits for it."""

    def __init__(self, fabric: Fabric, agents: AgentStore, folder: Path) -> None:
        """`agents`: those of this home."""
        self._fabric = fabric
        self._agents = agents
        self._store = ItemStore(folder, _Reported)
        self._waiting: dict[AgentName, _Waiting] = {}
        self._due_s: dict[AgentName, float] = {}
        """Earliest time of a model's next report."""
        self._paused_until_s = 0.0
        self._tasks = Tasks()

    def start(self) -> None:
        self._tasks.repeat(self._report_all, "what travelling models used")

    async def close(self) -> None:
        await self._tasks.close()

    def note(self, agent: Agent, entries: int, *, ended: bool) -> None:
        """Report the number of ledger entries of a model of this home."""
        known = self._store.get(agent.name)
        if known is not None and known.entries >= entries:
            self._waiting.pop(agent.name, None)
        else:
            self._waiting[agent.name] = _Waiting(agent.job, agent.walker, entries)
        if ended:
            self._due_s.pop(agent.name, None)

    async def _report_all(self) -> None:
        await asyncio.sleep(_CHECK_EVERY_S)
        for name, waiting in tuple(self._waiting.items()):
            now_s = time.monotonic()
            if now_s < max(self._paused_until_s, self._due_s.get(name, 0.0)):
                continue
            try:
                await self._report(name, waiting)
            except (Corrupt, InvalidInput, Refused) as error:
                log.error("the control centre does not pay what %s used: %s", name, error)
                if self._waiting.get(name) is waiting:  # Nothing was noted meanwhile.
                    self._due_s[name] = now_s + _REFUSED_S
            except DaitnError as error:
                log.info("what travelling models used is reported later: %s", error.problem)
                self._paused_until_s = now_s + EVERY_S

    async def _report(self, name: AgentName, waiting: _Waiting) -> None:
        agent = self._agents.get(waiting.job, waiting.walker)
        if agent is not None:
            key = keys.center_do("travelled")
            answer = await self._fabric.request(key, encode(agent), timeout_s=_TIMEOUT_S)
            self._store.put(name, _Reported(decode(answer, TravelReceipt).entries))
        if self._waiting.get(name) == waiting:  # There is no more to report meanwhile.
            del self._waiting[name]
            self._due_s[name] = time.monotonic() + EVERY_S
