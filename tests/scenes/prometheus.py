"""A real Prometheus that scrapes a network, on loopback."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from tests.scenes.ports import free_port
from tests.scenes.waiting import wait_until

__all__ = ["Prometheus"]


class Prometheus:
    """Runs with a configuration file; all that it keeps is in `folder`."""

    def __init__(self, config: Path, folder: Path) -> None:
        binary = shutil.which("prometheus")
        assert binary, "Prometheus is missing: apt-get install -y prometheus"
        address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{address}"
        self._log = (folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [
                binary,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'series'}",
                f"--web.listen-address={address}",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Prometheus:
        wait_until(self._is_ready)
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, "Prometheus has ended"
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready") as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def api(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its HTTP API."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url) as answer:
            told = json.loads(answer.read())
        assert told["status"] == "success", told
        return told["data"]

    def ask(self, expression: str) -> list[Any]:
        """The series of an expression now."""
        return list(self.api("query", query=expression)["result"])
