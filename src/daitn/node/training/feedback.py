"""Error feedback: what compression lost, stored at the site for the next update from the same data
and job.

It says what a site's records taught, as a savepoint does: it stays in the node's own folder, at
most so many at once, and goes when no job needs the model any more that it was trained from. Where
it is lost, the next update begins without it: that costs some accuracy and nothing else.

What visits without differential privacy lost is in no update of one with it, whose epsilon would
not cover it: the data's owner may demand privacy while a job runs.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from daitn.files.atomic import make_folder, put_in_place
from daitn.objects.identifiers import Digest
from daitn.objects.messages import VisitWork
from daitn.tools import clock

__all__ = ["Feedback"]

_MOST_KEPT = 16
"""Limit on jobs and data sets: each takes as much as the weights that its updates change."""
_GRACE_S = 1800.0
"""Between two rounds, the initial model of the last one is not needed by anybody."""


class Feedback:
    """One file for each job and data set, in `folder`."""

    def __init__(self, folder: Path, now_s: Callable[[], float] = clock.now_s) -> None:
        make_folder(folder)
        folder.chmod(0o700)
        self._folder = folder
        self._now_s = now_s

    def before(self, work: VisitWork, *, private: bool = False) -> Path | None:
        """What the last update of this job and data set lost. `private`: the one with differential
        privacy."""
        return next(iter(self._folder.glob(f"{_name(work, private)}.*")), None)

    def keep(self, work: VisitWork, left: Path, *, private: bool = False) -> None:
        """Replace it with the file `left`, if there is one."""
        if not left.is_file() or work.model is None:
            return
        name = _name(work, private)
        for old in self._folder.glob(f"{name}.*"):
            old.unlink()
        path = self._folder / f"{name}.{work.model.manifest}"
        put_in_place(left, path)
        os.utime(path, (self._now_s(), self._now_s()))
        kept = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime)
        for old in kept[:-_MOST_KEPT]:
            old.unlink()

    def retain(self, needed: frozenset[Digest]) -> None:
        """Delete that of jobs whose models are not needed."""
        for path in self._folder.iterdir():
            old = self._now_s() - path.stat().st_mtime >= _GRACE_S
            if old and path.name.partition(".")[2] not in needed:
                path.unlink()


def _name(work: VisitWork, private: bool) -> str:
    order = work.order.digest if work.order else ""
    of = "\0".join((work.owner, order, work.job, work.dataset, "private" if private else ""))
    return hashlib.blake2b(of.encode(), digest_size=20).hexdigest()
