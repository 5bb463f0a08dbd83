"""NVIDIA FLARE: a provisioned server on a separate host, a client at each site, mutual TLS; or its
simulator.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.peers import programs
from benchmarks.peers.environments import variables
from benchmarks.peers.run import Running, running, until
from benchmarks.peers.segments import Segments, Watch
from benchmarks.peers.tasks import Task

__all__ = ["Flare", "FlareSimulator"]

_SERVER, _ADMIN = "server", "admin"
_ADMIN_NAME = "admin@peers.org"
_LIGHTER = "nvflare.lighter.impl"
_BUILDERS: list[dict[str, Any]] = [
    {
        "path": f"{_LIGHTER}.workspace.WorkspaceBuilder",
        "args": {"template_file": ["master_template.yml"]},
    },
    {"path": f"{_LIGHTER}.static_file.StaticFileBuilder", "args": {"config_folder": "config"}},
    {"path": f"{_LIGHTER}.cert.CertBuilder"},
    {"path": f"{_LIGHTER}.signature.SignatureBuilder"},
]


@dataclass(frozen=True)
class Flare:
    """A workflow of FLARE as it is deployed."""

    bin: Path
    data: Path
    epochs: float
    algorithm: str = "fedavg"
    leaving: bool = False
    """Whether sites may leave."""
    name: str = "FLARE"

    @property
    def setting(self) -> str:
        rule = "cyclic" if self.algorithm == "cyclic" else "FedAvg"
        return f"{rule}, {self.epochs:g} epochs"

    def hosts(self, task: Task) -> tuple[str, ...]:
        return (_SERVER, _ADMIN, *task.sites)

    def start(self, task: Task, folder: Path, segments: Segments, watch: Watch) -> None:
        kits = self._provisioned(task, folder)
        for host in (_SERVER, *task.sites):
            kind = "server.server_train" if host == _SERVER else "client.client_train"
            config = "fed_server.json" if host == _SERVER else "fed_client.json"
            more = ["secure_train=true", "org=peers", "config_folder=config"]
            if host != _SERVER:
                more.append(f"uid={host}")
            command = [str(self.bin / "python"), "-u", "-m", f"nvflare.private.fed.app.{kind}"]
            command += ["-m", str(kits / host), "-s", config, "--set", *more]
            segments.hosts[host].start(command, folder / f"{host}.log", variables(self.bin))
        log = folder / f"{_SERVER}.log"
        until(
            lambda: all(f"New client {site}@" in log.read_text() for site in task.sites),
            watch,
            "clients",
        )

    def begin(self, task: Task, folder: Path, segments: Segments) -> Running:
        kit = ("--kit", str(_kits(folder) / _ADMIN_NAME))
        return _begun(self, task, folder, segments, _ADMIN, kit)

    def _provisioned(self, task: Task, folder: Path) -> Path:
        participants: list[dict[str, Any]] = [
            {"name": _SERVER, "type": "server", "org": "peers", "fed_learn_port": 8002}
        ]
        participants += [{"name": site, "type": "client", "org": "peers"} for site in task.sites]
        participants.append(
            {"name": _ADMIN_NAME, "type": "admin", "org": "peers", "role": "project_admin"}
        )
        project = folder / "project.yml"
        content = {"api_version": 3, "name": "peers", "participants": participants}
        project.write_text(yaml.safe_dump({**content, "builders": _BUILDERS}))
        command = [str(self.bin / "nvflare"), "provision", "-p", str(project)]
        with (folder / "provision.log").open("ab") as log:
            subprocess.run(
                [*command, "-w", str(folder / "workspace")], check=True, stdout=log, stderr=log
            )
        return _kits(folder)


@dataclass(frozen=True)
class FlareSimulator(Flare):
    """The same in FLARE's simulator: no network, all sites in one process tree."""

    name: str = "FLARE, simulator"

    def hosts(self, task: Task) -> tuple[str, ...]:
        return (_SERVER,)

    def start(self, task: Task, folder: Path, segments: Segments, watch: Watch) -> None:
        """Nothing: it starts with the job."""

    def begin(self, task: Task, folder: Path, segments: Segments) -> Running:
        return _begun(self, task, folder, segments, _SERVER)


def _begun(
    flare: Flare,
    task: Task,
    folder: Path,
    segments: Segments,
    host: str,
    more: tuple[str, ...] = (),
) -> Running:
    app, progress = folder / "app", folder / "progress.jsonl"
    app.mkdir()
    for name in ("learners.py", "flare_client.py", "flare_job.py"):
        shutil.copyfile(Path(programs.__path__[0]) / name, app / name)
    ring = flare.algorithm == "cyclic"
    judge = "all" if ring else next(site for site in task.sites if site not in task.leaving)
    least = task.least_sites(flare.leaving)
    command = [str(flare.bin / "python"), "-u", "flare_job.py", "--out", str(folder / "job")]
    command += ["--algorithm", flare.algorithm, "--task", str(flare.data), *more]
    command += ["--progress", str(progress), "--judge", judge, "--epochs", f"{flare.epochs:g}"]
    command += ["--least", str(least), "--sites", *task.sites]
    process = segments.hosts[host].start(
        ["sh", "-c", 'cd "$0" && exec "$@"', str(app), *command],
        folder / "submit.log",
        variables(flare.bin),
    )
    return running(progress, process, folder / "submit.log", rounds=not ring)


def _kits(folder: Path) -> Path:
    return folder / "workspace" / "peers" / "prod_00"
