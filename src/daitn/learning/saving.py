"""Savepoints on disk: a visit whose process dies resumes from its last saved state.

The visit's process writes them, and its node decides which one counts: beside that number
it stores its own state of the visit. Files with later numbers are of no use.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from daitn.files.atomic import replace_file

__all__ = ["FileSavepoints", "Saving", "savepoint_file"]

_log = logging.getLogger(__name__)

_DIGEST_BYTES = 32
_MOST_SHARE = 0.05
"""Maximum share of a visit's time for savepoints: large models are saved less often."""


class Saving(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how often a visit writes savepoints."""

    folder: str
    """The visit's own folder."""
    made_of: str
    """A digest of everything that determines the visit's result."""
    every_s: float
    """Seconds of work between two."""
    number: int = 0
    """Number of the savepoint from which to resume; 0 means none."""


def savepoint_file(folder: Path, number: int) -> Path:
    """The file of the savepoint with a number, which counts from 1."""
    return folder / f"{number}.savepoint"


class FileSavepoints:
    """Implements `recipe.Savepoints`.

    A file is the digest of the state, keyed with what the visit is made of, and the state: one of
    another visit and one that the disk changed look alike, and neither is used.
    """

    def __init__(
        self,
        saving: Saving,
        kept: Callable[[int], None],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`kept` is called with the number of each savepoint on disk."""
        self._folder = Path(saving.folder)
        self._made_of = saving.made_of
        self._every_s = saving.every_s
        self._number = saving.number
        self._kept = kept
        self._now_s = now_s
        self._due_at_s = now_s() + saving.every_s

    def latest(self) -> bytes | None:
        """See `Savepoints.latest`."""
        if not self._number:
            return None
        path = savepoint_file(self._folder, self._number)
        try:
            data = path.read_bytes()
        except OSError as error:
            _log.warning("%s cannot be read: %s", path, error.strerror)
            return None
        state = data[_DIGEST_BYTES:]
        if data[:_DIGEST_BYTES] != self._digest(state):
            _log.warning("%s is damaged, or of another visit: it is not used", path)
            return None
        return state

    def due(self) -> bool:
        """See `Savepoints.due`."""
        return self._now_s() >= self._due_at_s

    def keep(self, state: bytes) -> None:
        """See `Savepoints.keep`. A disk without room costs the savepoint, not the visit."""
        began_s = self._now_s()
        path = savepoint_file(self._folder, self._number + 1)
        try:
            replace_file(path, self._digest(state) + state, private=True)
        except OSError as error:
            _log.warning("%s was not written: %s", path, error.strerror)
        else:
            self._number += 1
            self._kept(self._number)
        took_s = self._now_s() - began_s
        self._due_at_s = self._now_s() + max(self._every_s, took_s / _MOST_SHARE)

    def _digest(self, state: bytes) -> bytes:
        key = hashlib.blake2b(self._made_of.encode(), digest_size=32).digest()
        return hashlib.blake2b(state, key=key, digest_size=_DIGEST_BYTES).digest()
