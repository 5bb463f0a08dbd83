"""A stand-in for the program `vllm`: it takes its arguments, and serves OpenAI's API as it does.

It tells what it was started with in a file beside itself, and spawns a process as vLLM does, in a
session of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["Told", "installed", "told"]

ANSWER = "I am no GPU."


class Told(msgspec.Struct):
    """What it was started with."""

    arguments: list[str]
    environment: dict[str, str]
    pid: int
    worker: int
    """Process id of what it spawned."""


def installed(folder: Path) -> Path:
    """The program, in a folder to be put on PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "vllm"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {folder}/told.json "$@"\n')
    program.chmod(0o755)
    return program


def told(folder: Path) -> Told:
    return msgspec.json.decode((folder / "told.json").read_bytes(), type=Told)


def main(file: str, *arguments: str) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--served-model-name")
    parser.add_argument("--max-model-len", type=int, default=2048)
    parser.add_argument("--max-num-seqs", type=int)
    parser.add_argument("--die", action="store_true")
    options = parser.parse_args(arguments)
    print("loading \x1b[31mweights\x1b[0m", flush=True)
    if options.die:
        sys.exit("no kernel image is available")
    worker = subprocess.Popen(["sleep", "600"], start_new_session=True)
    facts = Told(list(arguments), dict(os.environ), os.getpid(), worker.pid)
    Path(f"{file}.new").write_bytes(msgspec.json.encode(facts))
    Path(f"{file}.new").replace(file)
    key = os.environ.get("VLLM_API_KEY")
    model = {
        "id": options.served_model_name or options.model,
        "owned_by": "vllm",
        "max_model_len": options.max_model_len,
    }

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/health":
                self._say(200, {})
            elif self._admitted():
                self._say(200, {"object": "list", "data": [model]})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self._admitted():
                message = {"role": "assistant", "content": ANSWER}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                usage = {"prompt_tokens": 1, "completion_tokens": 5, "total_tokens": 6}
                about = {"object": "chat.completion", "model": asked["model"], "usage": usage}
                self._say(200, {**about, "choices": [choice]})

        def _admitted(self) -> bool:
            if key and self.headers.get("authorization") != f"Bearer {key}":
                self._say(401, {"error": "Unauthorized"})
                return False
            return True

        def _say(self, status: int, plain: Any) -> None:
            body = json.dumps(plain).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    ThreadingHTTPServer((options.host, options.port), Server).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
