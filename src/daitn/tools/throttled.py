"""Throttled logging of events caused by others, who cannot fill the log."""

from __future__ import annotations

import logging
import threading
from typing import Final

from cachetools import TTLCache

__all__ = ["ThrottledLog"]

_AGAIN_S: Final = 60.0
_MOST: Final = 256


class ThrottledLog:
    """Logs each kind of event once per interval, and a bounded number of kinds. Any thread may
    log. An event that recurs is logged again after the interval, so that a log shows its end."""

    def __init__(
        self, log: logging.Logger, *, again_s: float = _AGAIN_S, most: int = _MOST
    ) -> None:
        """`most`: kinds that are logged within `again_s`; beyond that, the log says that there are
        more."""
        self._log = log
        self._again_s = again_s
        self._most = most
        self._lock = threading.Lock()
        self._logged: TTLCache[str, None] = TTLCache(most + 1, again_s)

    def warning(self, kind: str, text: str, *values: object) -> None:
        """Log a warning, unless one of its kind, or too many, were logged recently.

        A kind should tell sources apart, and not be made up by them.
        """
        with self._lock:
            room = self._most - len(self._logged)
            if kind in self._logged or room < 0:
                return
            self._logged[kind] = None  # Once set, it stays for its time.
        if room > 0:
            self._log.warning(text, *values)
        else:
            self._log.warning("more warnings are left out for %.0f s", self._again_s)
