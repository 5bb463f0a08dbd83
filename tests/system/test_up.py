"""`daitn up`: what is left of a network goes on, and what was lost comes back when it is asked."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from daitn.files.lock import FolderLock
from tests.scenes.command_line import daitn
from tests.scenes.ports import free_port
from tests.scenes.waiting import wait_until
from tests.scenes.workers import children_of

pytestmark = [pytest.mark.processes, pytest.mark.slow]

DAITN = (sys.executable, "-m", "daitn.cli.app")


def written(folder: Path) -> tuple[Path, str]:
    """A network file of two forwarders, and where its control centre listens."""
    center = f"tcp/127.0.0.1:{free_port()}"
    config = folder / "network.yaml"
    nodes = [
        {
            "site": site,
            "owner": "me",
            "roles": ["forwarder"],
            "state": str(folder / site),
            "forwarder": {"listen": [f"tcp/127.0.0.1:{free_port()}"], "neighbours": {}},
        }
        for site in ("north", "south")
    ]
    network = {
        "center": {"listen": [center], "state": str(folder / "center")},
        "defaults": {"center": [center], "jurisdiction": "CA"},
        "nodes": nodes,
    }
    config.write_text(yaml.safe_dump(network))
    return config, center


class Up:
    """A network of forwarders, as its owner started it."""

    def __init__(self, folder: Path) -> None:
        self.config, self.center = written(folder)
        self.log = folder / "up.log"
        self.begun: list[subprocess.Popen[bytes]] = []
        self.main = self.begin("up", "-c", str(self.config), log=self.log)
        wait_until(lambda: "ready; control centre" in self.said())

    def begin(self, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as file:
            process = subprocess.Popen([*DAITN, *arguments], stdout=file, stderr=file, umask=0o022)
        self.begun.append(process)
        return process

    def said(self) -> str:
        return self.log.read_text()

    def kill(self, name: str) -> None:
        """Kill a process as a crash would."""
        for child, command in children_of(self.main.pid, recursive=True):
            arguments = " ".join(command).split()
            if arguments[-1:] == [name] or (name == "center" and "center" in arguments):
                child.kill()

    def alive(self) -> set[str]:
        ended = daitn("get", "nodes", "--json", DAITN_CENTER=self.center)
        nodes = json.loads(ended.stdout) if ended.returncode == 0 else []
        return {node["descriptor"]["site"] for node in nodes if node["alive"]}

    def end(self) -> None:
        for process in reversed(self.begun):
            process.send_signal(signal.SIGINT)
        for process in self.begun:
            process.wait(60)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    network = Up(tmp_path)
    yield network
    network.end()


@pytest.mark.parametrize("lost", ["north", "center"])
def test_one_process_is_killed_and_the_others_go_on(up: Up, tmp_path: Path, lost: str) -> None:
    up.kill(lost)
    wait_until(lambda: "the rest of the network goes on" in up.said())
    assert f"{lost} was killed by signal 9" in up.said()
    told = re.search(r"start it again with: (.*)", up.said())
    assert told is not None
    if lost == "north":
        wait_until(lambda: up.alive() == {"south"})
    command = shlex.split(told[1])
    assert command[0] == "daitn"
    up.begin(*command[1:], log=tmp_path / "again.log")
    wait_until(lambda: up.alive() == {"north", "south"})
    assert up.main.poll() is None


def test_what_processes_keep_is_their_user_s_alone(up: Up, tmp_path: Path) -> None:
    """The ledger, intents, weights: other users of the machine have an `umask` against them."""
    wait_until(lambda: up.alive() == {"north", "south"})
    assert (tmp_path / "center" / "jobs.db").exists()
    for state in ("center", "north", "south"):
        assert not (tmp_path / state).stat().st_mode & 0o077, state


def test_it_ends_when_nothing_is_left(up: Up) -> None:
    for name in ("north", "south", "center"):
        up.kill(name)
    assert up.main.wait(60) not in (0, None)
    assert "was killed by signal 9" in up.said()
    up.begun.clear()


def test_what_cannot_start_ends_it_at_once(tmp_path: Path) -> None:
    config, _ = written(tmp_path)
    held = FolderLock(tmp_path / "north")
    ended = subprocess.run([*DAITN, "up", "-c", str(config)], capture_output=True, timeout=120)
    held.release()
    assert ended.returncode != 0
    assert b"north ended with 2" in ended.stderr
    assert b"another process uses" in ended.stderr
