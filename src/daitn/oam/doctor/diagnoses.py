"""Findings of an examination."""

from __future__ import annotations

import enum

import msgspec

from daitn.objects.errors import DaitnError

__all__ = ["Diagnosis", "Level", "fine", "problem", "refused", "skipped", "warning"]


class Level(enum.StrEnum):
    """Severity."""

    OK = "ok"
    WARNING = "warning"
    """It works now, but not always, or not as well as it could."""
    PROBLEM = "problem"
    """Something does not work."""
    SKIPPED = "skipped"
    """It was not looked at, which is not a fault."""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """One check and its result."""

    check: str
    """Its name, for instance `disk`."""
    subject: str
    """What was examined: a file, a folder, a site."""
    level: Level
    what: str
    fix: str = ""
    """What to do, or how to have it looked at; empty if nothing is wrong."""


def fine(check: str, subject: str, what: str) -> Diagnosis:
    """Nothing is wrong."""
    return Diagnosis(check=check, subject=subject, level=Level.OK, what=what)


def warning(check: str, subject: str, what: str, fix: str) -> Diagnosis:
    """See `Level`."""
    return Diagnosis(check=check, subject=subject, level=Level.WARNING, what=what, fix=fix)


def problem(check: str, subject: str, what: str, fix: str) -> Diagnosis:
    """See `Level`."""
    return Diagnosis(check=check, subject=subject, level=Level.PROBLEM, what=what, fix=fix)


def skipped(check: str, subject: str, what: str, fix: str) -> Diagnosis:
    """See `Level`."""
    return Diagnosis(check=check, subject=subject, level=Level.SKIPPED, what=what, fix=fix)


def refused(check: str, subject: str, error: DaitnError) -> Diagnosis:
    """An error as a finding."""
    what = f"{error.field}: {error.problem}" if error.field else error.problem
    return problem(check, subject, what, error.fix)
