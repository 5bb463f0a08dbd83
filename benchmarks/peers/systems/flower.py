"""Flower: a SuperLink on a separate host, a SuperNode at each site; or its simulation."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers import programs
from benchmarks.peers.environments import variables
from benchmarks.peers.run import Running, running, until
from benchmarks.peers.segments import Segments, Watch
from benchmarks.peers.tasks import Task

__all__ = ["Flower", "FlowerSimulation"]

_SERVER = "server"
_PORT = 8000
_LOST_AFTER_S = 45.0
"""A round waits this long for a site that may have left, several times what a round takes; Flower
itself would wait for an hour, or until the site has missed two of its heartbeats (60 s)."""
_USUAL_S = 3600.0
_PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "peers-job"
version = "1.0.0"
description = "One job."
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "peers"

[tool.flwr.app.components]
serverapp = "flower_app:server"
clientapp = "flower_app:client"

[tool.flwr.app.config]
"""
_SIMULATE = "import flower_app; flower_app.simulate()"
"""Not as a script, whose functions Ray's workers do not find."""
_CONNECTION = """\
[superlink]
default = "peers"

[superlink.peers]
address = "{address}"
insecure = true
"""


@dataclass(frozen=True)
class Flower:
    """Rounds of Flower as it is deployed, without TLS; FedProx if `mu` is given."""

    bin: Path
    data: Path
    epochs: float
    mu: float = 0.0
    leaving: bool = False
    """Whether sites may leave."""
    name: str = "Flower"

    @property
    def setting(self) -> str:
        rule = f"FedProx {self.mu:g}" if self.mu else "FedAvg"
        return f"{rule}, {self.epochs:g} epochs"

    def run(self, task: Task, progress: Path) -> dict[str, Any]:
        """The run's configuration, of `flower_app`."""
        return {
            "task": str(self.data),
            "progress": str(progress),
            "sites": " ".join(task.sites),
            "least": task.least_sites(self.leaving),
            "timeout_s": _LOST_AFTER_S if self.leaving else _USUAL_S,
            "epochs": self.epochs,
            "mu": self.mu,
        }

    def hosts(self, task: Task) -> tuple[str, ...]:
        return (_SERVER, *task.sites)

    def start(self, task: Task, folder: Path, segments: Segments, watch: Watch) -> None:
        server, environment = segments.hosts[_SERVER], _environment(self.bin, folder)
        command = [str(self.bin / "flower-superlink"), "--insecure", "--host", server.address]
        command += ["--port", str(_PORT), "--disable-runtime-dependency-installation"]
        server.start(command, folder / "superlink.log", environment)
        until(lambda: _answers(server.address), watch, "SuperLink")
        for site in task.sites:
            command = [str(self.bin / "flower-supernode"), "--insecure"]
            command += ["--superlink", f"{server.address}:{_PORT}"]
            command += ["--node-config", f'site="{site}"']
            segments.hosts[site].start(command, folder / f"{site}.log", environment)
        log = folder / "superlink.log"
        until(lambda: log.read_text().count("Activated node") >= len(task.sites), watch, "sites")

    def begin(self, task: Task, folder: Path, segments: Segments) -> Running:
        app, progress = folder / "app", folder / "progress.jsonl"
        app.mkdir()
        server = segments.hosts[_SERVER]
        for name in ("learners.py", "flower_app.py"):
            shutil.copyfile(Path(programs.__path__[0]) / name, app / name)
        run = self.run(task, progress)
        lines = [f"{key} = {json.dumps(value)}" for key, value in run.items()]
        (app / "pyproject.toml").write_text(_PROJECT + "\n".join(lines) + "\n")
        connection = _CONNECTION.format(address=f"{server.address}:{_PORT}")
        (folder / "config.toml").write_text(connection)
        command = [str(self.bin / "flwr"), "run", str(app)]
        log = folder / "run.log"
        process = server.start(command, log, _environment(self.bin, folder))
        return running(progress, process, log)


@dataclass(frozen=True)
class FlowerSimulation(Flower):
    """The same in Flower's simulation: no network, Ray's workers for all sites."""

    name: str = "Flower, simulation"

    def hosts(self, task: Task) -> tuple[str, ...]:
        return (_SERVER,)

    def start(self, task: Task, folder: Path, segments: Segments, watch: Watch) -> None:
        """Nothing: it starts with the job."""

    def begin(self, task: Task, folder: Path, segments: Segments) -> Running:
        progress = folder / "progress.jsonl"
        run = self.run(task, progress)
        environment = {**_environment(self.bin, folder), "PEERS_RUN": json.dumps(run)}
        command = [str(self.bin / "python"), "-c", _SIMULATE]
        process = segments.hosts[_SERVER].start(command, folder / "run.log", environment)
        return running(progress, process, folder / "run.log")


def _environment(bin_: Path, folder: Path) -> dict[str, str]:
    return variables(
        bin_,
        PYTHONPATH=programs.__path__[0],
        FLWR_HOME=str(folder),
        FLWR_TELEMETRY_ENABLED="0",
        FLWR_DISABLE_UPDATE_CHECK="1",
        RAY_USAGE_STATS_ENABLED="0",
    )


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"http://{address}:{_PORT}/", timeout=1.0)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
