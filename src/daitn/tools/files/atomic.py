"""Small files that are whole or as they were, whenever the power goes."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["PARTIAL", "replace_file"]

PARTIAL = ".partial"
"""Ends the name of a file that is being written; what a crash leaves of it is of no use."""


def replace_file(path: Path, data: bytes) -> None:
    """Write a file in place of an earlier one; on disk when this returns. Raises `OSError`."""
    partial = path.with_name(path.name + PARTIAL)
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
