"""Public gateways with which `benchmarks.gateway` compares this one, each in a separate environment
that is installed on first use.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.gateway_load import KEY

__all__ = ["PEERS", "Peer", "running"]

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "daitn-benchmarks"
_STARTS_WITHIN_S = 90.0


class Peer(NamedTuple):
    """How to install and start one. `{bin}`, `{port}`, `{url}` and `{folder}` are filled in."""

    name: str
    package: str
    command: tuple[str, ...]
    health: str
    config: str = ""
    """Written to `{folder}/config`."""
    environment: Mapping[str, str] = {}


PEERS = (
    Peer(
        name="vllm-router",
        package="vllm-router",
        command=(
            "{bin}/python", "-m", "vllm_router.launch_router", "--host", "127.0.0.1",
            "--port", "{port}", "--worker-urls", "{url}", "--policy", "round_robin",
            "--prometheus-port", "{other}", "--log-level", "error",
        ),
        health="/health",
    ),
    Peer(
        name="litellm",
        package="litellm[proxy]",
        command=("{bin}/litellm", "--config", "{folder}/config", "--port", "{port}"),
        health="/health/liveliness",
        config=json.dumps(
            {
                "model_list": [
                    {
                        "model_name": "m",
                        "litellm_params": {
                            "model": "openai/m",
                            "api_base": "{url}/v1",
                            "api_key": "none",
                        },
                    }
                ]
            }
        ),
        environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": KEY},
    ),
)  # fmt: skip
"""A fast one, written in Rust, and the most used one."""


@contextmanager
def running(peer: Peer, url: str) -> Iterator[tuple[int | None, int, str]]:
    """Port and process id of a peer in front of `url`; or no port, and why."""
    home = CACHE / peer.name
    try:
        _install(peer, home)
    except (subprocess.SubprocessError, OSError) as error:
        yield None, 0, f"it does not install: {error}"
        return
    with tempfile.TemporaryDirectory() as folder:
        filled = {
            "bin": str(home / "bin"),
            "port": str(_free_port()),
            "other": str(_free_port()),
            "url": url,
            "folder": folder,
        }
        (Path(folder) / "config").write_text(_fill(peer.config, filled))
        log = Path(folder) / "log"
        with log.open("wb") as told:
            started = subprocess.Popen(
                [_fill(word, filled) for word in peer.command],
                stdout=told,
                stderr=subprocess.STDOUT,
                env={**os.environ, **peer.environment},
                start_new_session=True,
            )
        try:
            if _starts(int(filled["port"]), peer.health):
                yield int(filled["port"]), started.pid, ""
            else:
                said = " ".join(log.read_text(errors="replace").split()[-60:])
                yield None, 0, f"it does not answer within {_STARTS_WITHIN_S:g} s: {said}"
        finally:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()


def _install(peer: Peer, home: Path) -> None:
    done = home / "installed"
    if done.exists():
        return
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    pip = [str(home / "bin" / "pip"), "install", "-q", peer.package]
    subprocess.run(pip, check=True, capture_output=True, timeout=600)
    done.touch()


def _fill(text: str, filled: Mapping[str, str]) -> str:
    for name, value in filled.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _starts(port: int, health: str) -> bool:
    until_s = time.monotonic() + _STARTS_WITHIN_S
    while time.monotonic() < until_s:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{health}", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            time.sleep(0.5)
    return False
