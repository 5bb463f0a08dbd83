"""Hours in a data owner's policy: times of the week, by the clock of a time zone.

`Mon-Fri 18:00-08:00` starts on each of these days at 18:00 and ends on the next day at 08:00. The
clock on the wall decides, so an hour that the clock skips in spring is open for nobody, and one
that it repeats in autumn is open twice.
"""

from __future__ import annotations

import datetime
import functools
import re
import zoneinfo
from typing import NamedTuple

__all__ = ["Window", "day_of", "is_open", "is_zone", "window"]

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MINUTES = 24 * 60
_FORM = re.compile(r"(?P<days>[A-Za-z,-]+) (?P<start>\d\d:\d\d)-(?P<end>\d\d:\d\d)")


class Window(NamedTuple):
    """A time that recurs every week."""

    days: frozenset[int]
    """Days on which it starts; Monday is 0."""
    start: int
    """Minutes after midnight."""
    end: int
    """Likewise, exclusive; at or before `start` means on the next day."""

    def holds(self, day: int, minute: int) -> bool:
        """Whether it contains a minute of a weekday."""
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        before = (day - 1) % 7
        return (day in self.days and minute >= self.start) or (
            before in self.days and minute < self.end
        )


@functools.lru_cache(maxsize=1024)
def window(text: str) -> Window:
    """The window that `Mon-Fri 18:00-08:00` names. Raises `ValueError` for other words."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(f"hours: {text} is not of the form `Mon-Fri 18:00-08:00`")
    start, end = _minute(found["start"], text), _minute(found["end"], text)
    if start in (end, _MINUTES):
        raise ValueError(f"hours: {text} is not a span of time; a whole day is 00:00-24:00")
    return Window(frozenset(_days(found["days"], text)), start, end)


def is_open(hours: tuple[str, ...], time_zone: str, now_s: float) -> bool:
    """Whether the hours include the time `now_s`.

    Hours in a zone that this machine does not know count as closed: planners must not count on
    them, and guards of data must not let anybody in by them.
    """
    if "*" in hours:
        return True
    zone = _zone(time_zone)
    if zone is None:
        return False
    at = datetime.datetime.fromtimestamp(now_s, zone)
    minute = at.hour * 60 + at.minute
    return any(window(text).holds(at.weekday(), minute) for text in hours)


def is_zone(name: str) -> bool:
    """Whether this machine knows a time zone."""
    return _zone(name) is not None


def day_of(time_zone: str, now_s: float) -> int:
    """The calendar day of a time in a zone that `is_zone`; later days have larger numbers."""
    zone = zoneinfo.ZoneInfo(time_zone)
    return datetime.datetime.fromtimestamp(now_s, zone).date().toordinal()


def _zone(name: str) -> zoneinfo.ZoneInfo | None:
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):  # `America` is a folder.
        return None


def _minute(text: str, of: str) -> int:
    hour, minute = int(text[:2]), int(text[3:])
    at = hour * 60 + minute
    if minute > 59 or at > _MINUTES:
        raise ValueError(f"hours: {text} in {of} is not a time of day")
    return at


def _days(text: str, of: str) -> set[int]:
    days: set[int] = set()
    for part in text.lower().split(","):
        first, to, last = part.partition("-")
        last = last if to else first
        if first not in _DAYS or last not in _DAYS:
            raise ValueError(f"hours: {part} in {of} is not a day; write Mon, Tue, ..., Mon-Fri")
        start, end = _DAYS.index(first), _DAYS.index(last)
        days |= {(start + n) % 7 for n in range((end - start) % 7 + 1)}
    return days
