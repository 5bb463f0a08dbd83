"""When a retry may succeed, according to a server, in all the forms in use."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from daitn.objects.moments import DAY_S

__all__ = ["retry_after_s"]

_MAX_S = 7 * DAY_S
"""A longer wait is reported as this."""
_MAX_AWAY_S = 400 * DAY_S
"""A moment further away is ignored: the number means something else."""
_EPOCH_SCALES = (1.0, 1e3, 1e6, 1e9)
"""Epochs come in seconds, milliseconds (OpenRouter), or smaller units."""
_UNITS = {"d": DAY_S, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|d|h|m|s)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_TEXT = re.compile(
    r"(?:try again|retry|wait)[^.\d]{0,40}?(?:in|after|for)?\s*"
    r"((?:\d+(?:\.\d+)?\s*(?:ms|milliseconds?|seconds?|secs?|minutes?|mins?|hours?|hrs?|days?"
    r"|d|h|m|s)(?![a-z])\s*)+)",
    re.IGNORECASE,
)
_FIELD = re.compile(
    r"[\"'](?:retry|x-ratelimit|ratelimit)[-_]?(?:after|delay|reset)"
    r"(?:[-_]?(ms|milliseconds|s|sec|seconds))?[\"']\s*:\s*[\"']?([\w.:+-]+)",
    re.IGNORECASE,
)
"""A field of an error's body: `retry_after`, Google's `retryDelay`, and headers that OpenRouter
repeats there."""
_RESETS = re.compile(r"^(?:x-|anthropic-)?rate-?limit-(?:(.*)-)?reset(?:-(.*))?$")
_LIMITS = re.compile(r"^(?:x-)?rate-?limit$")
"""A whole limit in one header: `"default";r=0;t=77`, or `limit=9, remaining=0, reset=77` of older
drafts (draft-ietf-httpapi-ratelimit-headers)."""
_LIMIT_LEFT = re.compile(r"\b(?:r|remaining)\s*=\s*(\d+)")
_LIMIT_RESET = re.compile(r"\b(?:t|reset)\s*=\s*(\d+)")
_SEVERAL = re.compile(r"[A-Za-z]{3,9},[^,]+|[^,]+")
"""One of several values: dates contain commas themselves."""


def retry_after_s(headers: Mapping[str, str], text: str, now_s: float) -> float | None:
    """Seconds until a retry may succeed, according to headers (names in lower case) or the error's
    text; none if they do not say. `now_s`: seconds since the epoch, for dates."""
    if (milliseconds := _number(headers.get("retry-after-ms", ""))) is not None:
        return _bounded(milliseconds / 1e3)
    values = _SEVERAL.findall(headers.get("retry-after", ""))
    hints_s = [hint_s for value in values if (hint_s := _moment(value, now_s)) is not None]
    if hints_s:  # Proxies on the way may add theirs.
        return _bounded(max(hints_s))
    if (hint_s := _reset(headers, now_s)) is not None:
        return _bounded(hint_s)
    return _bounded(_in_text(text, now_s))


def _in_text(text: str, now_s: float) -> float | None:
    for unit, value in _FIELD.findall(text):
        if (hint_s := _moment(value, now_s)) is not None:
            return hint_s / 1e3 if unit.lower().startswith("m") else hint_s
    found = _TEXT.search(text)
    return None if found is None else _duration(_short(found.group(1)))


def _reset(headers: Mapping[str, str], now_s: float) -> float | None:
    """The last reset of the exhausted limits; if it is unknown which are, the first reset."""
    used_up: list[float] = []
    others: list[float] = []
    for name, value in headers.items():
        if _LIMITS.match(name):
            for limit in [value] if "reset" in value else value.split(","):
                if found := _LIMIT_RESET.search(limit):
                    limit_left = _LIMIT_LEFT.search(limit)
                    none_left = limit_left is not None and int(limit_left.group(1)) == 0
                    (used_up if none_left else others).append(float(found.group(1)))
            continue
        match = _RESETS.match(name)
        reset_s = _moment(value, now_s) if match else None
        if match is None or reset_s is None:
            continue
        left = headers.get(_remaining(name))
        (used_up if _number(left or "") == 0 else others).append(reset_s)
    return max(used_up) if used_up else min(others, default=None)


def _remaining(name: str) -> str:
    return name.replace("reset", "remaining")


def _moment(value: str, now_s: float) -> float | None:
    """Seconds from now: a number of seconds, an epoch, a duration such as `6m0s`, or a date."""
    value = value.strip()
    if (number := _number(value)) is not None:
        return _until(number, now_s) if number > 1e9 else number
    if (duration := _duration(value)) is not None:
        return duration
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        try:
            date = dt.datetime.fromisoformat(value)
        except ValueError:
            return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=dt.UTC)
    return date.timestamp() - now_s


def _until(epoch: float, now_s: float) -> float | None:
    for scale in _EPOCH_SCALES:
        if abs(wait_s := epoch / scale - now_s) < _MAX_AWAY_S:
            return wait_s
    return None


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _duration(value: str) -> float | None:
    if not _DURATION.fullmatch(value):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))


def _short(words: str) -> str:
    """`2 minutes 3 seconds` as `2m3s`."""
    words = re.sub(r"\s+", "", words.lower())
    for long, short in (("milliseconds?", "ms"), ("seconds?|secs?", "s"), ("minutes?|mins?", "m")):
        words = re.sub(rf"(?<=\d)(?:{long})", short, words)
    return re.sub(r"(?<=\d)days?", "d", re.sub(r"(?<=\d)(?:hours?|hrs?)", "h", words))


def _bounded(seconds: float | None) -> float | None:
    return None if seconds is None else min(max(0.0, seconds), _MAX_S)
