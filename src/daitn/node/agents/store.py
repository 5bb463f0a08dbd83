"""Agents on a site's disk: a crash loses none that the site has accepted. Beside them are the
models that a job's walkers left for each other: the latest of each job, bounded in number, size and
age."""

from __future__ import annotations

from pathlib import Path

from daitn.files.items import ItemStore
from daitn.objects.agents import Agent, agent_name
from daitn.objects.identifiers import Digest, JobId
from daitn.objects.jobs import LeftModel
from daitn.objects.moments import DAY_S

__all__ = ["AgentStore", "LeftModels"]

MOST_LEFT = 64
"""Maximum number of jobs with a stored model for walkers to meet."""
MOST_LEFT_BYTES = 16 << 30
"""Maximum size of those models together."""
LEFT_S = DAY_S
"""Models not met for this long are deleted: their job is over, or went elsewhere."""


class AgentStore:
    """One agent per job, or per walker of a job, at its latest stage."""

    def __init__(self, folder: Path) -> None:
        self._store = ItemStore(folder, Agent)

    def get(self, job: JobId, walker: int = 0) -> Agent | None:
        """An agent of a job, as last stored."""
        return self._store.get(agent_name(job, walker))

    def put(self, agent: Agent) -> None:
        """Store it; it is on disk when this returns. Raises `StorageFull`."""
        self._store.put(agent.name, agent)

    def drop(self, agent: Agent) -> None:
        """Delete it, unless a later stage is stored."""
        stored = self.get(agent.job, agent.walker)
        if stored is not None and stored.stage() <= agent.stage():
            self._store.forget(agent.name)

    def names(self) -> frozenset[str]:
        """Names of all stored agents."""
        return frozenset(self._store.names())

    def all(self) -> tuple[Agent, ...]:
        """All stored agents."""
        return tuple(self._store)


class LeftModels:
    """The last model that a walker of each job left at this site. Without one, or after its weights
    are lost, walkers continue unchanged."""

    def __init__(self, folder: Path) -> None:
        self._store = ItemStore(folder, LeftModel)
        self._known: dict[JobId, tuple[float, Digest, int]] = {}
        """Time, weights and size of each."""
        for left in self._store:
            self._note(left)

    def _note(self, left: LeftModel) -> None:
        self._known[left.job] = left.at_s, left.model.manifest, left.model.size_bytes

    def get(self, job: JobId) -> LeftModel | None:
        """The model that was left for a job."""
        return self._store.get(job) if job in self._known else None

    def put(self, left: LeftModel) -> None:
        """Store a walker's model, replacing the job's earlier one; if space is short, the oldest of
        other jobs is deleted. Raises `StorageFull`."""
        self._store.put(left.job, left)
        self._note(left)
        self.forget_old(left.at_s)

    def forget_old(self, now_s: float) -> None:
        """Delete models beyond the limits of size and age."""
        for job, (at_s, _, _) in sorted(self._known.items(), key=lambda one: one[1][0]):
            size_bytes = sum(size for _, _, size in self._known.values())
            too_much = len(self._known) > MOST_LEFT or size_bytes > MOST_LEFT_BYTES
            if not too_much and now_s - at_s < LEFT_S:
                return
            self._store.forget(job)
            del self._known[job]

    def models(self) -> frozenset[Digest]:
        """Weights that are stored."""
        return frozenset(model for _, model, _ in self._known.values())
