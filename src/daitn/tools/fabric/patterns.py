"""Key expressions: which are well formed, and which pattern covers which key.

A key is parts joined by `/`. In a pattern the part `*` stands for any one part and `**` for any
number of parts, including none. This is the subset of Zenoh's language that DA-ITN uses; a property
test compares it with Zenoh's own matcher.
"""

from __future__ import annotations

import itertools
import re

from daitn.objects.errors import InvalidInput

__all__ = ["checked_key", "checked_pattern", "covers"]

# Zenoh gives `#`, `?` and `$` a meaning of their own, and hides parts that start with `@` from
# wildcards; we want neither.
_PART = re.compile(r"[^/*#?$@\s][^/*#?$\s]*")


def checked_key(key: str) -> str:
    """Return `key` if it names exactly one key. Raises `InvalidInput` otherwise."""
    if all(_PART.fullmatch(part) for part in key.split("/")):
        return key
    raise InvalidInput(
        f"{key!r} is not a key",
        field="key",
        fix="join non-empty parts by '/', without blanks, wildcards and any of '#?$@'",
    )


def checked_pattern(pattern: str) -> str:
    """Return `pattern` if it is well formed. Raises `InvalidInput` otherwise."""
    parts = pattern.split("/")
    usable = all(part in ("*", "**") or _PART.fullmatch(part) for part in parts)
    pairs = set(itertools.pairwise(parts))
    if usable and pairs.isdisjoint({("**", "**"), ("**", "*")}):
        return pattern
    raise InvalidInput(
        f"{pattern!r} is not a key pattern",
        field="pattern",
        fix="join non-empty parts by '/'; '*' and '**' stand alone between slashes, and in one "
        "canonical order: '*/**', never '**/*' or '**/**'",
    )


def covers(pattern: str, key: str) -> bool:
    """Whether `pattern` covers `key`, in time proportional to the product of their lengths."""
    if pattern == key or "*" not in pattern:
        return pattern == key
    wanted, given = pattern.split("/"), key.split("/")
    at, star, resume = 0, -1, 0
    done = 0
    while done < len(given):
        if at < len(wanted) and wanted[at] == "**":
            star, resume = at, done
            at += 1
        elif at < len(wanted) and wanted[at] in ("*", given[done]):
            at += 1
            done += 1
        elif star >= 0:
            # The last `**` takes one more part, and the rest is tried again.
            resume += 1
            at, done = star + 1, resume
        else:
            return False
    return all(part == "**" for part in wanted[at:])
