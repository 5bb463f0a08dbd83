"""One run: a system does a task on a network, and its costs are measured from outside."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from benchmarks.peers.segments import Segments, Watch
from benchmarks.peers.tasks import Task

__all__ = [
    "NETWORKS",
    "Model",
    "Outcome",
    "Running",
    "System",
    "measured",
    "models_in",
    "running",
    "until",
]

NETWORKS = ("even", "slow", "leaving")
"""All links alike; that of one site 50 times slower; two sites that leave in the middle."""
_READY_WITHIN_S = 400.0
_LOOK_EVERY_S = 0.1


class Model(NamedTuple):
    """A measured model."""

    at_s: float
    """Seconds since 1970."""
    value: float


@dataclass(frozen=True)
class Outcome:
    """What a run took. Seconds count from the command that starts the job, with everything up."""

    task: str
    network: str
    system: str
    setting: str
    seed: int
    reached: bool
    value: float
    """Of the model that reached the target, or of the best one."""
    seconds: float
    sent_bytes: int | None
    """By all hosts, from the start of the job on; `None` where there is one host."""
    processor_s: float
    """Of all processes, from the start of the job on."""
    startup_s: float
    """From the first process to a system that can take the job."""
    startup_processor_s: float
    memory_bytes: int
    """Of all processes together, at its peak; shared pages once."""
    models: int
    """Measured until then, the fresh one not counted; 0: the system does not say."""
    why: str = ""
    """Why it ended without reaching, where somebody says."""


@dataclass(frozen=True)
class Running:
    """A job on its way, as its system tells of it."""

    found: Callable[[], Sequence[Model]]
    """Each model so far, oldest first."""
    under_way: Callable[[], bool]
    """Whether some site has trained."""
    ended: Callable[[], str] = field(default=lambda: "")
    """Why nothing more will come; empty while something may."""
    late: Callable[[], Sequence[Model]] | None = None
    """The models of a job that is out of time, where `found` waits for its end."""


class System(Protocol):
    """A system with its settings."""

    @property
    def name(self) -> str: ...

    @property
    def setting(self) -> str: ...

    def hosts(self, task: Task) -> tuple[str, ...]:
        """The hosts that it needs; those of the task's sites are called as these."""

    def start(self, task: Task, folder: Path, segments: Segments, watch: Watch) -> None:
        """Bring everything up; return when it can take the job."""

    def begin(self, task: Task, folder: Path, segments: Segments) -> Running:
        """Start the job."""


def measured(system: System, task: Task, network: str, folder: Path) -> Outcome:
    """Have a system do a task on one of `NETWORKS`; logs and state lie in `folder`.

    Raises `TimeoutError` if the system does not come up.
    """
    folder.mkdir(parents=True)
    slow = (next(iter(task.sites)),) if network == "slow" else ()
    with Segments(system.hosts(task), slow) as segments:
        watch = Watch(segments)
        began = time.monotonic()
        system.start(task, folder, segments, watch)
        startup_s, startup_processor_s = time.monotonic() - began, segments.processor_s()
        before, began_at, began = segments.sent_bytes(), time.time(), time.monotonic()
        running = system.begin(task, folder, segments)
        leaving = list(task.leaving) if network == "leaving" else []
        reached, why, found = None, "", tuple[Model, ...]()
        while reached is None and not why:
            time.sleep(_LOOK_EVERY_S)
            took = time.monotonic() - began
            if leaving and running.under_way():
                for site in leaving:
                    segments.hosts[site].kill()
                leaving = []
            watch.look()
            why = running.ended() or ("out of time" if took > task.within_s else "")
            found = tuple(running.found())
            reached = next((one for one in found if one.value >= task.target), None)
        took = time.monotonic() - began
        spent, sent, memory = segments.processor_s(), segments.sent_bytes(), watch.peak_bytes
        if not reached and running.late:
            found = tuple(running.late())
        best = reached or max(found, key=lambda one: one.value, default=Model(0.0, 0.0))
        return Outcome(
            task=task.name,
            network=network,
            system=system.name,
            setting=system.setting,
            seed=task.seed,
            reached=reached is not None,
            value=round(best.value, 4),
            seconds=round(reached.at_s - began_at if reached else took, 2),
            sent_bytes=sent - before if len(segments.hosts) > 1 else None,
            processor_s=round(spent - startup_processor_s, 2),
            startup_s=round(startup_s, 2),
            startup_processor_s=round(startup_processor_s, 2),
            memory_bytes=memory,
            models=max(0, len(found) - 1),
            why="" if reached else why,
        )


def until(ready: Callable[[], bool], watch: Watch, what: str) -> None:
    """Wait, and watch memory meanwhile."""
    began = time.monotonic()
    while not ready():
        watch.look()
        if time.monotonic() - began > _READY_WITHIN_S:
            raise TimeoutError(f"not within {_READY_WITHIN_S:g} s: {what}")
        time.sleep(_LOOK_EVERY_S)


def running(
    progress: Path, process: subprocess.Popen[bytes], log: Path, rounds: bool = True
) -> Running:
    """A peer's job that `process` has started, with its output in `log`.

    `rounds`: the first measured model is the fresh one.
    """

    def ended() -> str:
        return log.read_text(errors="replace")[-500:] if process.poll() else ""

    return Running(lambda: models_in(progress), lambda: len(models_in(progress)) > rounds, ended)


def models_in(progress: Path) -> list[Model]:
    """What `learners.Progress` wrote; a line that is being written counts when it is whole."""
    if not progress.is_file():
        return []
    lines = [line for line in progress.read_text().splitlines(keepends=True) if line.endswith("\n")]
    rounds: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [Model(one["at_s"], one["value"]) for one in rounds]
