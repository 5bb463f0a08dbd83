"""Findings of an examination."""

from __future__ import annotations

import enum

import msgspec

from daitn.objects.errors import DaitnError

__all__ = ["Check", "Diagnosis", "Level", "fine", "problem", "refused", "skipped", "warning"]


class Check(enum.StrEnum):
    """What a check examines."""

    CENTER = "center"
    """Control centres that cannot be reached, or do not accept a site's certificate or key."""
    FILE = "file"
    """Invalid fields."""
    DATA = "data"
    """Data that this user cannot read."""
    LEFT_OUT = "left-out"
    """Entries of its file that a node left out."""
    STATE = "state"
    """State folders that cannot be written."""
    DISK = "disk"
    """Low disk space."""
    DATABASE = "database"
    """Databases that cannot be written."""
    PORT = "port"
    """Addresses where a process cannot listen."""
    PROCESS = "process"
    """Which processes of the file run here now; their ports are not tried."""
    ROSTER = "roster"
    """Rosters that have expired, expire soon, are of another network, or older than the
    network's."""
    MEMBER = "member"
    """Memberships that have ended or end soon, and keys of other members."""
    CERTIFICATE = "certificate"
    """Certificates that have expired, expire soon, or are for another key or network."""
    SANDBOX = "sandbox"
    """Missing ways to confine recipes."""
    GPU = "gpu"
    """GPUs that PyTorch cannot use."""
    NETWORK = "network"
    """Whether the whole network was checked, and if not, what that requires."""
    STANDBY = "standby"
    """Control centres that are silent, and the lack of one to take over."""
    ALIVE = "alive"
    """Sites that are lost."""
    VERSION = "version"
    """Sites that run another version."""
    CLOCK = "clock"
    """Clocks that differ."""
    WAY = "way"
    """Sites between which neither can connect, because of a NAT or a firewall."""
    ENDPOINT = "endpoint"
    """Gateways and facilities that others cannot reach, for instance at a loopback address."""
    RELOAD = "reload"
    """Changes to a file that are not yet in force."""
    CORDON = "cordon"
    """Sites that are out of service."""
    ANSWERS = "answers"
    """Deployments that verifiers find worse than before, or two-faced; and verifiers that most
    others contradict."""


class Level(enum.StrEnum):
    """Severity."""

    OK = "ok"
    WARNING = "warning"
    """It works now, but not always, or not as well as it could."""
    PROBLEM = "problem"
    """Something does not work."""
    SKIPPED = "skipped"
    """Skipped, which is not a fault."""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """One check and its result."""

    check: Check
    subject: str
    """What was examined: a file, a folder, a site."""
    level: Level
    what: str
    fix: str = ""
    """What to do, or how to enable the check; empty if nothing is wrong."""


def fine(check: Check, subject: str, what: str) -> Diagnosis:
    """Nothing is wrong."""
    return Diagnosis(check=check, subject=subject, level=Level.OK, what=what)


def warning(check: Check, subject: str, what: str, fix: str) -> Diagnosis:
    """See `Level`."""
    return Diagnosis(check=check, subject=subject, level=Level.WARNING, what=what, fix=fix)


def problem(check: Check, subject: str, what: str, fix: str) -> Diagnosis:
    """See `Level`."""
    return Diagnosis(check=check, subject=subject, level=Level.PROBLEM, what=what, fix=fix)


def skipped(check: Check, subject: str, what: str, fix: str) -> Diagnosis:
    """See `Level`."""
    return Diagnosis(check=check, subject=subject, level=Level.SKIPPED, what=what, fix=fix)


def refused(check: Check, subject: str, error: DaitnError) -> Diagnosis:
    """An error as a finding."""
    what = f"{error.field}: {error.problem}" if error.field else error.problem
    return problem(check, subject, what, error.fix)
