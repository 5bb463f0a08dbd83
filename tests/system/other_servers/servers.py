"""Servers of others as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import msgspec

from tests.scenes.llama_cpp import (
    CONTEXT_TOKENS,
    skip_without_llama_cpp,
    write_folder,
    write_gguf,
)
from tests.scenes.ports import free_port
from tests.scenes.waiting import PATIENCE_S

__all__ = [
    "Server",
    "exported_llama_cpp",
    "llama_cpp",
    "transformers_serve",
]

STARTS_WITHIN_S = 120.0


class Server:
    """A server's process. `command` gets the port as its last argument."""

    def __init__(self, model: str, command: list[str], log: Path) -> None:
        """`model`: what the server calls it."""
        self.model = model
        self.port = free_port()
        self.log = log
        self._command = [*command, str(self.port)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Until it says that it is well."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env={**os.environ, "HF_HUB_OFFLINE": "1"}
            )
        until_s = time.monotonic() + STARTS_WITHIN_S
        while not self._well():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < until_s, self.log.read_text()
            time.sleep(0.1)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def get(self, path: str) -> Any:
        """What it says of itself there."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE_S
        ) as answer:
            return msgspec.json.decode(answer.read())

    def upstream(self, name: str, **changes: Any) -> dict[str, Any]:
        """Its entry in the file of a facility."""
        return {
            "name": name,
            "url": f"http://127.0.0.1:{self.port}/v1",
            "model": self.model,
            "slots": 1,
            "context_tokens": CONTEXT_TOKENS,
            **changes,
        }

    def _well(self) -> bool:
        try:
            self.get("/health")
        except OSError:
            return False
        return True


def transformers_serve(folder: Path) -> Server:
    """Hugging Face's."""
    write_folder(folder / "llama")
    program = str(Path(sys.executable).with_name("transformers"))
    command = [program, "serve", "--device", "cpu", "--host", "127.0.0.1", "--port"]
    return Server(str(folder / "llama"), command, folder / "transformers.log")


def llama_cpp(folder: Path, *options: str) -> Server:
    """llama.cpp's; skips the test where its package does not run."""
    skip_without_llama_cpp()
    model = folder / "llama.gguf"
    if not model.exists():
        write_gguf(model)
    return _of_file(model, *options)


def exported_llama_cpp(model: Path) -> Server:
    """The same, of a file that somebody else wrote."""
    skip_without_llama_cpp()
    return _of_file(model)


def _of_file(model: Path, *options: str) -> Server:
    program = [sys.executable, str(Path(__file__).with_name("llama_cpp.py"))]
    log = model.parent / f"llama.cpp{''.join(options)}.log"
    return Server(model.name, [*program, *options, str(model)], log)
