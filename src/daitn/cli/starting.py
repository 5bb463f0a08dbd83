"""How the processes of a network on one machine start."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Protocol

from daitn.learning.child.beginning import ENGINES, PASSED_ON, TEMPLATE, environment
from daitn.spawning.messages import SUPPORTED
from daitn.spawning.spawner import Template

__all__ = ["LIFELINE", "RunningProcess", "Starter"]

log = logging.getLogger(__name__)

LIFELINE = "DAITN_LIFELINE"
"""In a child's environment: exit at the end of standard input, that is, when the parent is gone."""
_SERVICES = ("daitn.cli.app", "daitn.cli.processes", "daitn.node.node", "daitn.center.service")
"""Imports of a network's processes."""
_AFTER_STREAMS = 3


class RunningProcess(Protocol):
    """The required part of a process, which `subprocess.Popen` has."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class Starter:
    """Starts processes of `daitn` that end with this one: copies of a template, if the machine
    supports that."""

    def __init__(self, logs: Path) -> None:
        """`logs`: folder for the log of templates."""
        self._logs = logs
        self._lifelines: list[int] = []

    def start(
        self, arguments: list[str], log_file: Path, variables: Mapping[str, str]
    ) -> RunningProcess:
        """Run `daitn` with these arguments, and with variables in addition to those of this
        process; its output is appended to a file."""
        passed = {**os.environ, **variables, LIFELINE: "1"}
        with log_file.open("ab") as output:
            if SUPPORTED:
                try:
                    return self._fork(arguments, output.fileno(), passed)
                except OSError as error:
                    log.warning("daitn %s starts without a template: %s", arguments[0], error)
            return subprocess.Popen(
                [sys.executable, "-m", "daitn.cli.app", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.PIPE,
                env=passed,
                start_new_session=True,
            )

    def _fork(self, arguments: list[str], output: int, variables: dict[str, str]) -> RunningProcess:
        templates = _templates(self._logs)
        lifeline, end = os.pipe()
        self._lifelines.append(end)  # Nobody else has it, so that it ends with this process.
        files = [lifeline, output, output]
        workers = templates.workers.connection() if templates.workers else None
        try:
            if workers is not None:
                files.append(workers.fileno())
                variables = {**variables, TEMPLATE: str(_AFTER_STREAMS)}
            return templates.services.spawn(
                "daitn.cli.app",
                arguments,
                files,
                title=" ".join(("daitn", *arguments)),
                environment=variables,
            )
        finally:
            os.close(lifeline)
            if workers is not None:
                workers.close()

    def close(self) -> None:
        """Close once everything that was started has ended."""
        for end in self._lifelines:
            os.close(end)
        self._lifelines.clear()


class _Templates(NamedTuple):
    """They end with this process, and serve all networks that it starts."""

    services: Template
    """Services of control centres and nodes."""
    workers: Template | None
    """Workers beside nodes, which hold no secrets."""
    surroundings: Mapping[str, str]
    """Environment variables that Python and libraries read when they are loaded."""

    @property
    def usable(self) -> bool:
        runs = self.services.runs and (self.workers is None or self.workers.runs)
        return runs and self.surroundings == _surroundings()


_open: _Templates | None = None


def _templates(logs: Path) -> _Templates:
    """The templates of this process. Raises `OSError`."""
    global _open
    if _open is None or not _open.usable:
        with (logs / "templates.log").open("ab") as errors:
            services, workers = Template(_SERVICES, os.environ, errors), None
            if find_spec("torch") is not None:
                workers = Template(ENGINES, environment(1), errors)
        _open = _Templates(services, workers, _surroundings())
    return _open


def _surroundings() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in PASSED_ON or name.startswith("PYTHON")
    }
