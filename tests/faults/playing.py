"""Seeds played as a command, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["play"]

_ROOT = Path(__file__).parents[2]


def play(*arguments: str, within_s: float = 840.0) -> str:
    """What the harness prints; it must find no problem."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.faults", *arguments],
        cwd=_ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(_ROOT / "src"), str(_ROOT)))},
        capture_output=True,
        check=False,
        timeout=within_s,
    )
    told = ended.stdout.decode()
    assert ended.returncode == 0, told + ended.stderr.decode()
    return told
