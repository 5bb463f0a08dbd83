"""A reader who does what the pages say, command by command."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.docs.pages import DOCS, script
from tests.scenes.ports import free_port

__all__ = [
    "ENCRYPTED_WALK",
    "JOINED_WALK",
    "KEPT_WALK",
    "QUERYING_WALK",
    "STANDBY_WALK",
    "STEERED_WALK",
    "TRAINING_WALK",
    "WALKS",
    "run_script",
    "walk",
]

TRAINING_WALK: Final = (
    "tutorial/first-training.md",
    "tutorial/from-training-to-queries.md",
    "how-to/write-an-intent.md",
    "how-to/read-a-report.md",
    "how-to/hand-a-model-over.md",
    "how-to/see-a-network.md",
    "how-to/use-the-api.md",
    "how-to/watch-a-network.md",
    "how-to/bring-your-own-model.md",
)
"""Pages whose commands are run, in the order in which they build on each other."""

QUERYING_WALK: Final = (
    "tutorial/first-training.md",
    "how-to/run-a-site.md",
    "how-to/say-what-you-let-in.md",
    "how-to/serve-models.md",
    "how-to/ask-the-network.md",
    "how-to/account-for-use.md",
    "how-to/add-a-recipe.md",
)

STEERED_WALK: Final = ("how-to/run-a-forwarder.md",)

ENCRYPTED_WALK: Final = ("how-to/encrypt-the-network.md",)

KEPT_WALK: Final = ("how-to/keep-a-network-running.md",)

STANDBY_WALK: Final = ("how-to/stand-by.md",)

JOINED_WALK: Final = ("how-to/found-a-network.md", "how-to/join-a-network.md")

WALKS: Final = (
    TRAINING_WALK,
    QUERYING_WALK,
    STEERED_WALK,
    ENCRYPTED_WALK,
    JOINED_WALK,
    KEPT_WALK,
    STANDBY_WALK,
)

READ_WITHIN_S = 540.0
END_WITHIN_S = 20.0


def walk(pages: Sequence[str], folder: Path, there: Mapping[str, str] | None = None) -> str:
    """Do what the pages say, in a folder, with free ports; returns what was printed. `there`: what
    the reader has in place of what a page names."""
    script_ = "set -eu\n" + "\n".join(
        script(DOCS / page, prefix=f"log-{n}-") for n, page in enumerate(pages)
    )
    for named, own in (there or {}).items():
        script_ = script_.replace(named, own)
    documented_ports = {"7447", "7480", *re.findall(r"127\.0\.0\.1:([1-9]\d+)", script_)}
    ports = {port: free_port() for port in sorted(documented_ports)}
    for documented, free in ports.items():
        script_ = script_.replace(f"127.0.0.1:{documented}", f"127.0.0.1:{free}")
    installed = str(folder / "installed")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DAITN_CENTER": f"tls/127.0.0.1:{ports['7447']}",
        "DAITN_GATEWAY": f"http://127.0.0.1:{ports['7480']}",
        # `pip install` of a reader's recipe: into the test's folder, and from no index.
        "PIP_TARGET": installed,
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PYTHONPATH": os.pathsep.join(filter(None, [installed, os.environ.get("PYTHONPATH")])),
    }
    code = run_script(script_, folder, environment)
    told = (folder / "reader.log").read_text()
    assert code == 0, f"the last command failed:\n{told[-6000:]}"
    return told


def run_script(
    script_: str, folder: Path, environment: dict[str, str], within_s: float = READ_WITHIN_S
) -> int:
    """Run a shell script to its end, then end what it left running; gives its exit code."""
    with (folder / "reader.log").open("wb") as log:
        reader = subprocess.Popen(
            ["bash", "-c", script_],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        return reader.wait(within_s)
    except subprocess.TimeoutExpired:
        logs = [folder / "reader.log", *sorted(folder.glob("log-*.log"))]
        told = "\n".join(f"{log.name}:\n{log.read_text()[-3000:]}" for log in logs)
        pytest.fail(f"the last command has not ended:\n{told}")
    finally:
        _end_group(reader)


def _end_group(leader: subprocess.Popen[bytes]) -> None:
    """`daitn up` ends its own processes when it is told to end, so it is given time for that."""
    until = time.monotonic() + END_WITHIN_S
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGTERM)
        while time.monotonic() < until:
            leader.poll()
            os.killpg(leader.pid, 0)
            time.sleep(0.05)
        os.killpg(leader.pid, signal.SIGKILL)
