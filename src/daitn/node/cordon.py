"""A site's cordon on its disk: set by an operator or the site's owner, in force until lifted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from daitn.files.atomic import make_folder, replace_file
from daitn.files.failed_writes import STATE_FIX
from daitn.objects.audit import AuditEvent
from daitn.objects.cordons import Cordon, CordonChange, CordonQuestion
from daitn.objects.errors import Corrupt, Refused, StorageFull
from daitn.objects.wire import decode, encode
from daitn.tools import clock

__all__ = ["CordonFile"]

log = logging.getLogger(__name__)

_EVENTS: Final = {
    CordonChange.CORDON: AuditEvent.CORDONED,
    CordonChange.DRAIN: AuditEvent.DRAINED,
    CordonChange.UNCORDON: AuditEvent.UNCORDONED,
}


class CordonFile:
    """The cordon in force, on disk before it is acknowledged."""

    def __init__(self, path: Path, changed: Callable[[], None]) -> None:
        """`changed` is called after each change. Raises `Corrupt` if the file cannot be read: the
        site must not take work by mistake."""
        self._path = path
        self._changed = changed
        self.cordon: Cordon | None = None
        """`None` means the site is in service."""
        try:
            self.cordon = decode(path.read_bytes(), Cordon)
        except FileNotFoundError:
            return
        except Corrupt as error:
            raise Corrupt(
                f"the site's cordon in {path} cannot be read: {error.problem}",
                fix="remove the file, start the site, and cordon it again if needed",
            ) from None
        log.warning("this site %s", self.cordon)

    def change(
        self, question: CordonQuestion, by: str, note: Callable[[AuditEvent, str, str], object]
    ) -> None:
        """Set or lift the cordon. `note` writes event, member and reason to the audit log, before
        anything changes. Raises `StorageFull`."""
        event = _EVENTS.get(question.change)
        if event is None:
            return
        note(event, by, question.reason)
        if question.change is CordonChange.UNCORDON:
            self._path.unlink(missing_ok=True)
            self.cordon = None
            log.info("this site takes visits, deployments, packets and queries again")
        else:
            cordon = _changed(self.cordon, question, by)
            self._write(cordon)
            self.cordon = cordon
            log.warning("this site %s", cordon)
        self._changed()

    def check(self, site: str, what: str) -> None:
        """Raise `Refused` if the site is cordoned."""
        if self.cordon is not None:
            raise Refused(
                f"{site} {self.cordon}, and takes no {what}",
                field="site",
                fix=f"choose another site, or have its operator run `daitn uncordon {site}`",
            )

    def _write(self, cordon: Cordon) -> None:
        try:
            make_folder(self._path.parent)
            replace_file(self._path, encode(cordon))
        except OSError as error:
            raise StorageFull(
                f"{self._path} cannot be written: {error.strerror}",
                fix=STATE_FIX,
            ) from None


def _changed(before: Cordon | None, question: CordonQuestion, by: str) -> Cordon:
    """A further cordon only adds: a draining site keeps draining, and a reason stays until a new
    one replaces it."""
    before = before or Cordon(by=by, since_s=clock.now_s())
    return Cordon(
        by=by,
        since_s=before.since_s,
        reason=question.reason or before.reason,
        draining=before.draining or question.change is CordonChange.DRAIN,
    )
