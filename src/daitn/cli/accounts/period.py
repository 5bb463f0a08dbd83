"""Times that people state: dates and durations before now."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from daitn.objects.errors import InvalidInput

__all__ = ["moment"]

_AGO = re.compile(r"(\d{1,6})([hdw])")
_UNITS_S = {"h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def moment(text: str, field: str, now_s: float, otherwise_s: float) -> float:
    """Seconds since the epoch of `2026-11-21`, `2026-11-21T10:00` (both UTC), or `7d`, `24h`, `2w`
    before now; `otherwise_s` if nothing is stated. Raises `InvalidInput`."""
    if not text:
        return otherwise_s
    if ago := _AGO.fullmatch(text):
        return max(0.0, now_s - int(ago[1]) * _UNITS_S[ago[2]])
    try:
        at = datetime.fromisoformat(text)
        return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"{text!r} is not a time",
            field=field,
            fix="write a date such as 2026-11-21, or 7d, 24h, 2w before now",
        ) from None
