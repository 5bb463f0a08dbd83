"""Agents at a site, on its disk: a crash loses none that was taken over."""

from __future__ import annotations

from pathlib import Path

from daitn.files.items import ItemStore
from daitn.objects.agents import Agent
from daitn.objects.identifiers import JobId

__all__ = ["AgentStore"]


class AgentStore:
    """One agent per job, the latest stage of it."""

    def __init__(self, folder: Path) -> None:
        self._store = ItemStore(folder, Agent)

    def get(self, job: JobId) -> Agent | None:
        """The agent of a job, as it was kept last."""
        return self._store.get(job)

    def put(self, agent: Agent) -> None:
        """Keep it; on disk when this returns. Raises `StorageFull`."""
        self._store.put(agent.job, agent)

    def drop(self, agent: Agent) -> None:
        """Keep it no longer; a later stage of it stays."""
        kept = self.get(agent.job)
        if kept is not None and kept.stage() <= agent.stage():
            self._store.forget(agent.job)

    def jobs(self) -> frozenset[JobId]:
        """The jobs of all that are kept."""
        return frozenset(map(JobId, self._store.names()))

    def all(self) -> tuple[Agent, ...]:
        """All that are kept."""
        return tuple(self._store)
