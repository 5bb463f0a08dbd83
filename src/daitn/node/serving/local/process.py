"""The process of a server that the node runs, and its output."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections import deque
from collections.abc import Mapping, Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path

from daitn.files.atomic import make_folder
from daitn.learning.child.beginning import PASSED_ON
from daitn.learning.child.ending import ending
from daitn.node.serving.local.keeper import ENDS_WITHIN_S
from daitn.objects.text import escaped

__all__ = ["ServerProcess"]

_LOG_BYTES = 1 << 20
"""Maximum size of a log, and of the one before it."""
_READ_BYTES = 1 << 16
_LINE_CHARS = 2000
_TAIL_LINES, _TAIL_CHARS = 12, 2000
_REAPED_WITHIN_S = ENDS_WITHIN_S + 5.0


class ServerProcess:
    """A running server, made by `start`."""

    def __init__(self, process: Process, log: Path) -> None:
        assert process.stdout is not None
        assert process.stdin is not None
        self._process = process
        self._leash = process.stdin
        self.log = log
        """Its output, escaped and bounded in length."""
        self.lines = 0
        """Number of lines that it has printed."""
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._following = asyncio.create_task(self._follow(process.stdout), name="server's log")

    @classmethod
    async def start(
        cls, command: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> ServerProcess:
        """Start a server whose home and log are in `folder`. It ends with this process, including
        everything that it has started. Raises `OSError`.

        Of this process's environment it gets what tells where programs and processors are, and
        nothing else: there are keys of other servers.
        """
        make_folder(folder)
        folder.chmod(0o700)
        passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "daitn.node.serving.local.keeper", *command),
            stdin=PIPE,
            stdout=PIPE,
            stderr=STDOUT,
            env={**passed, "HOME": str(folder), **environment},
            cwd=folder,
            start_new_session=True,
        )
        return cls(process, folder / "server.log")

    @property
    def pid(self) -> int:
        """Process id of its keeper."""
        return self._process.pid

    @property
    def tail(self) -> str:
        """The last lines that it printed."""
        return "\n".join(self._tail)[-_TAIL_CHARS:]

    async def ended(self) -> str:
        """Wait for its end; returns how it ended, in words."""
        code = await self._process.wait()
        with contextlib.suppress(TimeoutError):  # Somebody else may hold its output open.
            await asyncio.wait_for(asyncio.shield(self._following), 1.0)
        return ending(code)

    async def stop(self) -> None:
        """End it: first ask, then kill."""
        self._leash.close()
        try:
            async with asyncio.timeout(_REAPED_WITHIN_S):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._following, 1.0)

    async def _follow(self, output: asyncio.StreamReader) -> None:
        """Log its output. It may contain strangers' questions, so it is escaped and readable by its
        owner only."""
        handler = RotatingFileHandler(
            self.log, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8", errors="replace"
        )
        form = logging.Formatter("%(asctime)s UTC %(message)s")
        form.converter = time.gmtime
        handler.setFormatter(form)
        log = logging.Logger("server", logging.INFO)
        log.addHandler(handler)
        rest = ""
        try:
            while data := await output.read(_READ_BYTES):
                *lines, rest = (rest + data.decode(errors="replace")).splitlines() or [""]
                if data.endswith((b"\n", b"\r")):
                    lines, rest = [*lines, rest], ""
                if len(rest) > _LINE_CHARS:
                    lines, rest = [*lines, rest], ""
                self._keep(lines, log)
            self._keep([rest], log)
        finally:
            handler.close()

    def _keep(self, lines: list[str], log: logging.Logger) -> None:
        self.lines += len(lines)
        shown = [text for line in lines if (text := escaped(line[:_LINE_CHARS]).strip())]
        self._tail.extend(shown)
        if shown:  # All at once: some servers print fast.
            log.info("%s", "\n".join(shown))
