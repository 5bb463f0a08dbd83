"""Recordings on disk, one compressed file per family."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

from daitn.sim.learning.recordings import Recording, read_recording, write_recording

__all__ = ["FOLDER", "families", "load", "save"]

FOLDER = Path(__file__).resolve().parent.parent / "recordings"
"""Those that come with the project."""
_ENDING = ".jsonl.gz"


def families(folder: Path = FOLDER) -> tuple[str, ...]:
    """Names of the recorded families."""
    return tuple(sorted(path.name.removesuffix(_ENDING) for path in folder.glob(f"*{_ENDING}")))


def load(family: str, folder: Path = FOLDER) -> Recording:
    """Read the recording of a family."""
    with gzip.open(folder / f"{family}{_ENDING}") as lines:
        return read_recording(lines)


def save(recording: Recording, folder: Path = FOLDER) -> Path:
    """Write a recording, whole or not at all; equal recordings give equal files."""
    path = folder / f"{recording.header.family}{_ENDING}"
    lines = b"".join(line + b"\n" for line in write_recording(recording))
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_bytes(gzip.compress(lines, compresslevel=9, mtime=0))
    os.replace(unfinished, path)
    return path
