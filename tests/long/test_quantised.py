"""What `tests/learning/test_quantising.py` asks of the library that quantises, with the library."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scenes.packages import installed

pytestmark = [pytest.mark.processes, pytest.mark.long, pytest.mark.timeout(900)]

_ASKED = Path(__file__).parent.parent / "learning" / "test_quantising.py"


def test_bases_are_quantised(tmp_path: Path) -> None:
    installed(tmp_path, "--no-deps", "bitsandbytes>=0.50")
    asked = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(_ASKED)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stdout
    assert "skipped" not in asked.stdout
