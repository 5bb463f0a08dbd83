"""What an examination found."""

from __future__ import annotations

import enum

import msgspec

from daitn.objects.errors import DaitnError

__all__ = ["Diagnosis", "Level", "fine", "problem", "told", "warning"]


class Level(enum.StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """It works now, and will not always, or not as well as it could."""
    PROBLEM = "problem"
    """Something does not work."""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """One check and what came of it."""

    check: str
    """Its name, for instance `disk`."""
    subject: str
    """What was examined: a file, a folder, a site."""
    level: Level
    what: str
    fix: str = ""
    """What to do; empty where nothing is wrong."""


def fine(check: str, subject: str, what: str) -> Diagnosis:
    """Nothing is wrong."""
    return Diagnosis(check=check, subject=subject, level=Level.OK, what=what)


def warning(check: str, subject: str, what: str, fix: str) -> Diagnosis:
    """See `Level`."""
    return Diagnosis(check=check, subject=subject, level=Level.WARNING, what=what, fix=fix)


def problem(check: str, subject: str, what: str, fix: str) -> Diagnosis:
    """See `Level`."""
    return Diagnosis(check=check, subject=subject, level=Level.PROBLEM, what=what, fix=fix)


def told(check: str, subject: str, error: DaitnError) -> Diagnosis:
    """An error as a finding."""
    what = f"{error.field}: {error.problem}" if error.field else error.problem
    return problem(check, subject, what, error.fix)
