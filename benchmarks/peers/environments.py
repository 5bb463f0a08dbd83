"""Separate environments for the peers, created on first use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["FLARE", "FLOWER", "environment", "variables"]

FLOWER = ("flwr[simulation]==1.42.0", "numpy")
FLARE = ("nvflare==2.9.0", "numpy")
_INSTALLS_WITHIN_S = 900.0


def environment(home: Path, name: str, packages: tuple[str, ...]) -> Path:
    """The `bin` folder of an environment with these packages, which is made if it is not there."""
    folder = home / name
    done = folder / "installed"
    if not (done.is_file() and done.read_text() == "\n".join(packages)):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *packages], check=True, timeout=_INSTALLS_WITHIN_S)
        done.write_text("\n".join(packages))
    return folder / "bin"


def variables(bin_: Path, **more: str) -> dict[str, str]:
    """What a peer's processes find in their environment: one thread each, and nothing of ours."""
    return {
        "PATH": f"{bin_}:/usr/sbin:/usr/bin:/bin",
        "PYTHONPATH": "",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        **more,
    }
