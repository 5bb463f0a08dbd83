"""Flower: a SuperLink on a host of its own, a SuperNode at each site; or its simulation."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers import programs
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
        return f"{_rule(self.mu)}, {self.epochs:g} epochs"

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
        run = _run(task, self.data, progress, self.epochs, self.mu, self.leaving)
        lines = [f"{key} = {json.dumps(value)}" for key, value in run.items()]
        (app / "pyproject.toml").write_text(_PROJECT + "\n".join(lines) + "\n")
        connection = _CONNECTION.format(address=f"{server.address}:{_PORT}")
        (folder / "config.toml").write_text(connection)
        command = [str(self.bin / "flwr"), "run", str(app)]
        log = folder / "run.log"
        process = server.start(command, log, _environment(self.bin, folder))
        return running(progress, process, log)


@dataclass(frozen=True)
class FlowerSimulation:
    """The same in Flower's simulation: no network, Ray's workers for all sites."""

    bin: Path
    data: Path
    epochs: float
    mu: float = 0.0
    name: str = "Flower, simulation"

    @property
    def setting(self) -> str:
        return f"{_rule(self.mu)}, {self.epochs:g} epochs"

    def hosts(self, task: Task) -> tuple[str, ...]:
        return (_SERVER,)

    def start(self, task: Task, folder: Path, segments: Segments, watch: Watch) -> None:
        """Nothing: it starts with the job."""

    def begin(self, task: Task, folder: Path, segments: Segments) -> Running:
        progress = folder / "progress.jsonl"
        run = _run(task, self.data, progress, self.epochs, self.mu, leaving=False)
        environment = {**_environment(self.bin, folder), "PEERS_RUN": json.dumps(run)}
        command = [str(self.bin / "python"), "-c", _SIMULATE]
        process = segments.hosts[_SERVER].start(command, folder / "run.log", environment)
        return running(progress, process, folder / "run.log")


def _rule(mu: float) -> str:
    return f"FedProx {mu:g}" if mu else "FedAvg"


def _run(
    task: Task, data: Path, progress: Path, epochs: float, mu: float, leaving: bool
) -> dict[str, Any]:
    """The run's configuration, of `flower_app`."""
    return {
        "task": str(data),
        "progress": str(progress),
        "sites": " ".join(task.sites),
        "least": len(task.sites) - (len(task.leaving) if leaving else 0),
        "timeout_s": _LOST_AFTER_S if leaving else _USUAL_S,
        "epochs": epochs,
        "mu": mu,
    }


def _environment(bin_: Path, folder: Path) -> dict[str, str]:
    return {
        "PATH": f"{bin_}:/usr/sbin:/usr/bin:/bin",
        "PYTHONPATH": programs.__path__[0],
        "FLWR_HOME": str(folder),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"http://{address}:{_PORT}/", timeout=1.0)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
