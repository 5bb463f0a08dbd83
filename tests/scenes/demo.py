"""The demo as a user runs it, on the corpus that the project brings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["run_demo"]

MOST_S = 2400.0


def run_demo(folder: Path, *options: str) -> str:
    """Run it, with its results in `folder`, and return what it says. It ends with 0 only where both
    targets are reached."""
    environment = {name: value for name, value in os.environ.items() if name != "DAITN_DATA"}
    environment["HOME"] = str(folder.parent)
    ended = subprocess.run(
        [sys.executable, "-m", "daitn.cli.app", "demo", "-o", str(folder), *options],
        capture_output=True,
        text=True,
        env=environment,
        timeout=MOST_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return ended.stdout
