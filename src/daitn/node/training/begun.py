"""A site's records of unfinished visits, so that they resume after a crash.

A savepoint holds weights without the noise with which they leave. So it stays in the site's state
folder, readable to the node alone, and goes when its visit is done, has failed or is cancelled, or
a day later.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from daitn import __version__
from daitn.files.atomic import make_folder
from daitn.files.failed_writes import STATE_FIX
from daitn.files.items import ItemStore
from daitn.learning.saving import Saving, savepoint_file
from daitn.node.config import DatasetConfig
from daitn.node.disclosure import LossGate, LossState
from daitn.objects.errors import StorageFull
from daitn.objects.identifiers import VisitId, checked_name
from daitn.objects.messages import VisitWork
from daitn.objects.moments import DAY_S
from daitn.objects.privacy import PrivacySpent
from daitn.objects.wire import canonical
from daitn.tools import clock

__all__ = ["BegunVisit", "BegunVisits", "UnderWay", "digest_of"]

log = logging.getLogger(__name__)

KEPT_S = DAY_S
"""Since the last savepoint: after a longer absence, a visit starts over."""


class BegunVisit(msgspec.Struct, frozen=True, kw_only=True):
    """A visit as of its latest savepoint."""

    made_of: str
    """A digest of everything that determines its result."""
    counted_at_s: float
    """When it last counted against its order and the data's policy."""
    savepoint: int = 0
    """Number of the savepoint; 0 means none yet."""
    resumed_at: int = 0
    """The savepoint from which the latest attempt began."""
    worked_s: float = 0.0
    losses: LossState = LossState()
    """The gate's sums by then."""
    published: tuple[float | None, ...] = msgspec.field(default=(), name="told")
    """The published losses, including those after the savepoint."""
    at_s: float = 0.0
    """When it was saved."""

    @property
    def got_on(self) -> bool:
        """Whether the latest attempt got further than it began. Resuming from there repeats nothing
        that was counted; other attempts count again, as their failures can reveal something."""
        return self.savepoint > self.resumed_at


class BegunVisits:
    """Visits with a savepoint, on disk in `folder`."""

    def __init__(self, folder: Path, now_s: Callable[[], float] = clock.now_s) -> None:
        make_folder(folder)
        folder.chmod(0o700)
        self._files = folder / "files"
        self._store = ItemStore(folder / "begun", BegunVisit)
        self._now_s = now_s
        make_folder(self._files)
        known = {name for name in self._store.names() if self.get(VisitId(name)) is not None}
        for found in self._files.iterdir():
            if found.name not in known:
                shutil.rmtree(found, ignore_errors=True)

    def get(self, visit: VisitId) -> BegunVisit | None:
        """The record of a visit; none if it has no savepoint, or an old one."""
        begun = self._store.get(visit)
        if begun is not None and abs(self._now_s() - begun.at_s) > KEPT_S:
            log.info("the savepoint of %s is too old and goes", visit)
            self.forget(visit)
            return None
        return begun

    def put(self, visit: VisitId, begun: BegunVisit) -> BegunVisit:
        """Store a visit that has a savepoint. Raises `StorageFull`."""
        begun = msgspec.structs.replace(begun, at_s=self._now_s())
        self._store.put(visit, begun)
        for number in range(max(1, begun.savepoint - 2), begun.savepoint):
            savepoint_file(self.folder(visit), number).unlink(missing_ok=True)
        return begun

    def folder(self, visit: VisitId) -> Path:
        """The folder of a visit's savepoints, created if missing. Raises `StorageFull`."""
        folder = self._folder(visit)
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StorageFull(
                f"{folder} cannot be made: {error.strerror}",
                fix=STATE_FIX,
            ) from None
        return folder

    def forget(self, visit: VisitId) -> None:
        """Delete the record of a visit. Forgetting twice is harmless."""
        self._store.forget(visit)
        shutil.rmtree(self._folder(visit), ignore_errors=True)

    def forget_old(self) -> None:
        """Delete what is too old to resume."""
        for name in self._store.names():
            self.get(VisitId(name))

    def _folder(self, visit: VisitId) -> Path:
        return self._files / checked_name(visit, "visit")


class UnderWay:
    """A visit while one process trains it, with its record."""

    def __init__(self, work: VisitWork, begun: BegunVisit, visits: BegunVisits | None) -> None:
        self.begun = msgspec.structs.replace(begun, resumed_at=begun.savepoint)
        self._visit = work.visit
        self._visits = visits
        self._worked_before_s = begun.worked_s
        self._began_s = time.monotonic()
        if begun.savepoint and visits is not None:
            visits.put(self._visit, self.begun)

    def saving(self, every_s: float) -> Saving | None:
        """Where the process writes savepoints. Raises `StorageFull`."""
        if self._visits is None:
            return None
        return Saving(
            folder=str(self._visits.folder(self._visit)),
            made_of=self.begun.made_of,
            every_s=every_s,
            number=self.begun.savepoint,
        )

    def kept(self, losses: LossGate, number: int) -> None:
        """There is a savepoint: it counts once this is on disk, with the gate's state at that
        time."""
        if self._visits is None or number <= self.begun.savepoint:
            return
        kept = msgspec.structs.replace(
            self.begun,
            savepoint=number,
            worked_s=self._worked_before_s + time.monotonic() - self._began_s,
            losses=losses.state,
            published=losses.published,
        )
        try:
            self.begun = self._visits.put(self._visit, kept)
        except StorageFull as error:
            log.warning("the savepoint of %s does not count: %s", self._visit, error)

    def publishing(self, losses: tuple[float | None, ...]) -> None:
        """Losses are about to leave. Raises `StorageFull`."""
        self.begun = msgspec.structs.replace(self.begun, published=losses)
        if self.begun.savepoint and self._visits is not None:
            self._visits.put(self._visit, self.begun)


def digest_of(
    work: VisitWork, dataset: DatasetConfig, seed: int, privacy: PrivacySpent | None = None
) -> str:
    """A digest of everything that determines a visit's result, including the seed, a secret of the
    site, but not the draws of a private visit."""
    data = ""
    with contextlib.suppress(OSError):  # Its recipe says what is wrong with it.
        if os.path.isfile(dataset.path):
            with open(dataset.path, "rb") as file:
                data = hashlib.file_digest(file, "blake2b").hexdigest()
    model = work.model.manifest if work.model else ""
    own = work.own.manifest if work.own else ""
    how = (work.recipe, work.config, work.local, own)
    facts = (work.visit, work.job, work.owner, how, work.examples, model)
    terms = (dataset.name, data, dataset.selection, seed, privacy, __version__)
    return hashlib.blake2b(canonical((facts, terms))).hexdigest()
