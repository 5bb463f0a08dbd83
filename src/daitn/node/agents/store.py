"""Journeys at a site, on its disk: a crash loses none that was taken over."""

from __future__ import annotations

from pathlib import Path

from daitn.objects.agents import Agent
from daitn.objects.errors import Corrupt, StorageFull
from daitn.objects.identifiers import JobId, checked_name
from daitn.objects.wire import decode, encode
from daitn.tools.files.atomic import PARTIAL, make_folder, put_in_place, replace_file

__all__ = ["AgentStore"]

_SUFFIX = ".agent"


class AgentStore:
    """One file per job in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        make_folder(folder)
        for leftover in folder.glob(f"*{PARTIAL}"):
            leftover.unlink()

    def get(self, job: JobId) -> Agent | None:
        """The journey of a job, as it was kept last."""
        path = self._path(job)
        try:
            return decode(path.read_bytes(), Agent)
        except FileNotFoundError:
            return None
        except Corrupt:
            put_in_place(path, path.with_name(path.name + ".corrupt"))
            return None

    def put(self, agent: Agent) -> None:
        """Keep it; on disk when this returns. Raises `StorageFull`."""
        try:
            replace_file(self._path(agent.job), encode(agent))
        except OSError as error:
            raise StorageFull(
                f"travelling models cannot be written: {error.strerror}",
                fix="free room in the site's state folder, and check that it may be written",
            ) from None

    def drop(self, agent: Agent) -> None:
        """Keep it no longer; a later stage of it stays."""
        kept = self.get(agent.job)
        if kept is not None and kept.stage() <= agent.stage():
            self._path(agent.job).unlink(missing_ok=True)

    def jobs(self) -> frozenset[JobId]:
        """The jobs of all that are kept."""
        return frozenset(JobId(path.stem) for path in self._folder.glob(f"*{_SUFFIX}"))

    def all(self) -> tuple[Agent, ...]:
        """All that are kept."""
        kept = (self.get(job) for job in sorted(self.jobs()))
        return tuple(agent for agent in kept if agent is not None)

    def _path(self, job: JobId) -> Path:
        return self._folder / f"{checked_name(job, 'job')}{_SUFFIX}"
