"""Times that commands print and read, all in UTC: machines of one network are in many zones."""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo
from typing import Final

from daitn.objects.errors import InvalidInput

__all__ = ["day", "moment", "when"]

_AGO = re.compile(r"(\d{1,6})([hdw])")
_UNITS_S = {"h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_NO_DAY: Final = "no day of the calendar"
"""Strangers write times too."""


def when(at_s: float) -> str:
    """A time: `2026-11-21 10:00:00 UTC`."""
    return _written(at_s, "%Y-%m-%d %H:%M:%S UTC")


def day(at_s: float) -> str:
    """The day of a time: `2026-11-21`."""
    return _written(at_s, "%Y-%m-%d")


def moment(text: str, field: str, now_s: float, otherwise_s: float, *, zone: tzinfo = UTC) -> float:
    """Seconds since the epoch of a time: `2026-11-21` or `2026-11-21 10:00` in `zone`,
    `2026-11-21T10:00+02:00`, or `7d`, `24h`, `2w` before now. An empty text is `otherwise_s`.
    Raises `InvalidInput`."""
    if not text:
        return otherwise_s
    if ago := _AGO.fullmatch(text):
        return max(0.0, now_s - int(ago[1]) * _UNITS_S[ago[2]])
    try:
        at = datetime.fromisoformat(text)
        return max(0.0, (at if at.tzinfo else at.replace(tzinfo=zone)).timestamp())
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"{text!r} is not a time",
            field=field,
            fix='write a time such as 2026-11-21 or "2026-11-21 10:00", or 7d, 24h, 2w before now',
        ) from None


def _written(at_s: float, form: str) -> str:
    try:
        return datetime.fromtimestamp(at_s, UTC).strftime(form)
    except (ValueError, OverflowError, OSError):
        return _NO_DAY
