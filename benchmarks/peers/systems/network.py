"""DA-ITN: a control centre, a node at each site and one that verifies, with mutual TLS, sandboxes
and signed orders."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.peers.run import Model, Running, until
from benchmarks.peers.segments import Segments, Watch
from benchmarks.peers.tasks import Task
from daitn.cli.founding import found_network, remember_network
from daitn.cli.network import read_network

__all__ = ["DaItn"]

_CENTER, _OWNER, _VERIFIER = "center", "owner", "verifier"
_PORT = 7447
_TOPIC, _RECIPE = "records", "classifier"
_DAITN = (sys.executable, "-m", "daitn.cli.app")


@dataclass(frozen=True)
class DaItn:
    """DA-ITN with a training algorithm, or with the one that it chooses itself."""

    data: Path
    algorithm: str = "auto"
    training: dict[str, Any] = field(default_factory=dict)
    name: str = "DA-ITN"

    @property
    def setting(self) -> str:
        return ", ".join([self.algorithm, *(f"{key} {it}" for key, it in self.training.items())])

    def hosts(self, task: Task) -> tuple[str, ...]:
        return (_CENTER, _OWNER, _VERIFIER, *task.sites)

    def start(self, task: Task, folder: Path, segments: Segments, watch: Watch) -> None:
        file = folder / "network.yaml"
        file.write_text(yaml.safe_dump(self._network(task, segments)))
        center, nodes = read_network(file)
        found_network(center, nodes)
        remember_network(center, nodes)
        log = folder / "center.log"
        segments.hosts[_CENTER].start((*_DAITN, "center", "-c", str(file)), log)
        for node in nodes:
            command = (*_DAITN, "node", "-c", str(file), "--site", node.site)
            segments.hosts[node.site].start(command, folder / f"{node.site}.log")
        logs = [folder / f"{node.site}.log" for node in nodes]
        until(lambda: all("is ready" in told.read_text() for told in logs), watch, "nodes")

    def begin(self, task: Task, folder: Path, segments: Segments) -> Running:
        intent, out = folder / "intent.yaml", folder / "job.json"
        intent.write_text(yaml.safe_dump(self._intent(task)))
        center = ("--center", self._endpoint(segments))
        command = (*_DAITN, "train", "-f", str(intent), "--watch", "--json", "--insist", *center)
        process = segments.hosts[_OWNER].start(command, out)
        log = folder / "center.log"

        def found() -> list[Model]:
            view = _view(out.read_text()) if process.poll() is not None else None
            return [] if view is None else _models(view)

        def ended() -> str:
            if process.poll() is None:
                return ""
            view = _view(out.read_text())
            return view["detail"] or view["state"] if view else out.read_text()[-500:]

        def late() -> list[Model]:
            asked = folder / "late.json"
            asking = (*_DAITN, "describe", "job", f"{task.name}-1", "--json", *center)
            segments.hosts[_OWNER].start(asking, asked).wait()
            view = _view(asked.read_text())
            return [] if view is None else _models(view)

        def under_way() -> bool:
            trained = log.read_text().partition("is visiting")[2]
            return "is verifying" in trained or "is merging" in trained

        return Running(found, under_way, ended, late)

    def _endpoint(self, segments: Segments) -> str:
        return f"tls/{segments.hosts[_CENTER].address}:{_PORT}"

    def _network(self, task: Task, segments: Segments) -> dict[str, Any]:
        endpoint = self._endpoint(segments)

        def node(site: str, **more: Any) -> dict[str, Any]:
            listen = [f"tls/{segments.hosts[site].address}:{_PORT}"]
            return {"site": site, "owner": site, "state": f"state/{site}", "listen": listen, **more}

        table: dict[str, Any] = {
            "name": "data",
            "data_schema": "table/1",
            "modality": "table",
            "topics": [_TOPIC],
            "policy": {"recipes": [_RECIPE]},
        }
        sites = [
            node(
                site,
                roles=["data", "compute"],
                datasets=[{**table, "path": str(self.data / path)}],
            )
            for site, path in task.sites.items()
        ]
        test = {"topic": _TOPIC, "path": str(self.data / task.test), "test_schema": "table/1"}
        unit = node(_VERIFIER, roles=["verifier"], tests=[{**test, "chance": task.chance}])
        defaults = {
            "center": [endpoint],
            "jurisdiction": "US",
            "recipes": [_RECIPE],
            "threads": 1,
        }
        center = {"listen": [endpoint], "state": "state/center"}
        return {"center": center, "defaults": defaults, "nodes": [*sites, unit]}

    def _intent(self, task: Task) -> dict[str, Any]:
        return {
            "name": task.name,
            "owner": "owner",
            "model": {"recipe": _RECIPE, "seed": task.seed, "config": dict(task.config)},
            "objectives": [{"name": "test", "topic": _TOPIC, "at_least": task.target}],
            "data": {"topics": [_TOPIC]},
            "budget": {"duration_s": task.within_s},
            "training": {"algorithm": self.algorithm, **self.training},
        }


def _view(text: str) -> dict[str, Any] | None:
    """The job as a command printed it."""
    begin = text.find("{")
    try:
        view: dict[str, Any] = json.loads(text[begin:]) if begin >= 0 else {}
    except json.JSONDecodeError:
        return None
    return view or None


def _models(view: dict[str, Any]) -> list[Model]:
    """The measured models of a job, all as of its end, when the last one was measured."""
    at_s = view["ended_at_s"] or 0.0
    measured = {visit["model"]: visit["values"].get("test", 0.0) for visit in view["route"]}
    return [Model(0.0, 0.0), *(Model(at_s, value) for value in measured.values())]
