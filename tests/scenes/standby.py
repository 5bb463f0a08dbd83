"""Two control centres with one PostgreSQL and one key, and the sites that know both."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

from daitn.cli.embedded import EmbeddedNetwork
from daitn.cli.starting import LIFELINE
from daitn.objects.identifiers import CENTER_SITE
from tests.scenes.breast_cancer import write_network
from tests.scenes.command_line import Ended, daitn
from tests.scenes.ports import free_port
from tests.scenes.postgres import PostgresServer, postgres_server
from tests.scenes.relay import Relay
from tests.scenes.waiting import wait_until

__all__ = ["Pair", "pair"]


class _ToSocket(Relay):
    """Between a control centre and the database's socket."""

    def __init__(self, server: PostgresServer) -> None:
        super().__init__(port=1)
        self._socket = server.socket

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self._socket))


class Pair:
    """`a` and `b`. `a` reaches the database through a relay, which can be cut."""

    def __init__(self, folder: Path, server: PostgresServer) -> None:
        self._folder = folder
        self.relay = _ToSocket(server)
        self.database = server.database()
        self.endpoints = {name: f"tcp/127.0.0.1:{free_port()}" for name in "ab"}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        network = write_network(folder)
        plain = yaml.safe_load(network.read_text())
        name = self.database.partition("@/")[2].partition("?")[0]
        through = f"postgresql+psycopg://postgres@127.0.0.1:{self.relay.port}/{name}"
        plain["center"] |= {
            "listen": [self.endpoints["a"]],
            "database": f"{through}?sslmode=disable&gssencmode=disable",
            "replica": "a",
        }
        plain["defaults"]["center"] = list(self.endpoints.values())
        self._nodes(plain)
        network.write_text(yaml.safe_dump(plain))
        other = {
            "listen": [self.endpoints["b"]],
            "state": "state/other",
            "database": self.database,
            "replica": "b",
            "roster": "state/center/network/roster.json",
        }
        (folder / "b.yaml").write_text(yaml.safe_dump(other))
        self.files = {"a": network, "b": folder / "b.yaml"}
        self.network = EmbeddedNetwork(network, folder / "logs")

    def _nodes(self, plain: dict[str, Any]) -> None:
        """What else is in the network."""

    def start(self) -> None:
        asyncio.run(self.network.start(lambda site, done, of: None))
        backup = self._folder / "backup"
        for step in (("backup", backup, "a"), ("restore", backup, "b")):
            ended = daitn(step[0], str(step[1]), "-c", str(self.files[step[2]]))
            assert ended.returncode == 0, ended.stderr
        self.launch("b")
        wait_until(lambda: len(self.centers()) == 2)

    def stop(self) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()
        self.network.stop()

    def launch(self, name: str) -> None:
        """Start a control centre, also again."""
        if name == "a":
            self.network.launch(CENTER_SITE)
            return
        with (self._folder / "logs" / "b.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", "daitn.cli.app", "center", "-c", str(self.files[name])],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, LIFELINE: "1"},
            )

    def kill(self, name: str) -> None:
        """As a crash does."""
        if name == "a":
            self.network.kill(CENTER_SITE)
        else:
            process = self._running.pop(name)
            process.kill()
            process.wait()

    def end(self, name: str) -> None:
        """Ask it to stop, as an upgrade does."""
        if name == "a":
            os.kill(self._pid("a"), signal.SIGTERM)
            wait_until(self.network.ended)
        else:
            process = self._running.pop(name)
            process.terminate()
            process.wait()

    def pause(self, name: str) -> None:
        os.kill(self._pid(name), signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        os.kill(self._pid(name), signal.SIGCONT)

    def _pid(self, name: str) -> int:
        return self.network.pid(CENTER_SITE) if name == "a" else self._running[name].pid

    def daitn(self, *arguments: str) -> Ended:
        """Run a command against whichever leads."""
        return daitn(*arguments, DAITN_CENTER=",".join(self.endpoints.values()))

    def json(self, *arguments: str) -> Any:
        """What a command prints with --json, and None while nobody answers."""
        ended = self.daitn(*arguments, "--json")
        return json.loads(ended.stdout) if ended.returncode == 0 else None

    def centers(self) -> dict[str, bool]:
        """Those that have shown themselves lately, and whether each leads."""
        found = self.json("get", "centers") or []
        return {one["replica"]: one["leads"] for one in found if one["silent_s"] < 5.0}

    def leader(self) -> str:
        """The one that leads and answers; empty: none does."""
        return next((name for name, leads in self.centers().items() if leads), "")

    def alive(self) -> set[str]:
        """Sites that the leader sees."""
        nodes = self.json("get", "nodes") or []
        return {node["descriptor"]["site"] for node in nodes if node["alive"]}

    def log(self, name: str) -> str:
        file = f"{CENTER_SITE}.log" if name == "a" else "b.log"
        return (self._folder / "logs" / file).read_text()


AnyPair = TypeVar("AnyPair", bound=Pair)


@contextmanager
def pair(folder: Path, kind: type[AnyPair]) -> Iterator[AnyPair]:
    """A running one."""
    with postgres_server() as server:
        made = kind(folder, server)
        with made.relay:
            try:
                made.start()
                yield made
            finally:
                made.stop()
