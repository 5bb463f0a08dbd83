"""Identifiers. Each is a string with its own type."""

from __future__ import annotations

import re
from typing import Annotated, NewType

import msgspec

from daitn.objects.errors import InvalidInput
from daitn.objects.text import Line

__all__ = [
    "CENTER_SITE",
    "NAME_FORM",
    "Digest",
    "JobId",
    "ObjectiveName",
    "OwnerId",
    "SiteId",
    "VisitId",
    "Word",
    "checked_name",
    "checked_owner",
    "is_name",
]

Word = Annotated[Line, msgspec.Meta(max_length=200)]
"""A name or an address on the network: bounded, and safe in logs and on terminals."""
SiteId = NewType("SiteId", Word)
"""A site, for instance `ninds`; each runs one node."""
JobId = NewType("JobId", Word)
VisitId = NewType("VisitId", Word)
"""One command to one site (a visit or a verification); retries of the command keep the id."""
OwnerId = NewType("OwnerId", Word)
ObjectiveName = NewType("ObjectiveName", Word)
Digest = NewType("Digest", Word)
"""BLAKE3-256 of some bytes, 64 lower-case hexadecimal digits."""

CENTER_SITE = SiteId("center")
"""The site name under which the control centre holds owners' weights; no real site has it."""

_LONGEST_OWNER = 200
_LONGEST_NAME = 63
NAME_FORM = rf"[a-z0-9](?:[a-z0-9._-]{{0,{_LONGEST_NAME - 2}}}[a-z0-9])?"
"""A regular expression for names that are valid in a key expression, a file name and a URL."""
_NAME = re.compile(NAME_FORM)


def is_name(value: str) -> bool:
    """Whether `value` is valid in a key expression, a file name and a URL."""
    return _NAME.fullmatch(value) is not None


def checked_name(value: str, field: str, most: int = _LONGEST_NAME) -> str:
    """Return `value` if it is valid in a key expression, a file name and a URL, and has at most
    `most` characters.

    Raises `InvalidInput` naming `field` otherwise.
    """
    if is_name(value) and len(value) <= most:
        return value
    raise InvalidInput(
        f"{value!r} is not a usable name",
        field=field,
        fix=f"use 1 to {most} of a-z, 0-9, '.', '_', '-', starting and ending with a letter or "
        "digit",
    )


def checked_owner(value: str, field: str) -> str:
    """Return `value` if it may name an operator of a site: any visible text except `*`, which means
    everybody in rules, and the control centre's name. Such a name is displayed and compared, but
    never names a file. Raises `InvalidInput` naming `field` otherwise."""
    visible = value.isprintable() and value == value.strip() != ""
    if visible and len(value) <= _LONGEST_OWNER and "*" not in value and value != CENTER_SITE:
        return value
    raise InvalidInput(
        f"{value!r} is not a usable owner",
        field=field,
        fix=f"use up to {_LONGEST_OWNER} visible characters without '*', and not {CENTER_SITE!r}",
    )
