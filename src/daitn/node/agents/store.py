"""Agents on a site's disk: a crash loses none that the site has taken over."""

from __future__ import annotations

from pathlib import Path

from daitn.files.items import ItemStore
from daitn.objects.agents import Agent
from daitn.objects.identifiers import JobId

__all__ = ["AgentStore"]


class AgentStore:
    """One agent per job, at its latest stage."""

    def __init__(self, folder: Path) -> None:
        self._store = ItemStore(folder, Agent)

    def get(self, job: JobId) -> Agent | None:
        """The agent of a job, as last stored."""
        return self._store.get(job)

    def put(self, agent: Agent) -> None:
        """Store it; it is on disk when this returns. Raises `StorageFull`."""
        self._store.put(agent.job, agent)

    def drop(self, agent: Agent) -> None:
        """Delete it, unless a later stage is stored."""
        stored = self.get(agent.job)
        if stored is not None and stored.stage() <= agent.stage():
            self._store.forget(agent.job)

    def jobs(self) -> frozenset[JobId]:
        """The jobs of all stored agents."""
        return frozenset(map(JobId, self._store.names()))

    def all(self) -> tuple[Agent, ...]:
        """All stored agents."""
        return tuple(self._store)
