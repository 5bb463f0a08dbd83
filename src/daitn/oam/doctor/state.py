"""What lies in a process's state folder: its right to be there, its certificates, its database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from daitn.center.config import CenterConfig
from daitn.files.lock import FolderLock
from daitn.identity.certificates import certificate_ends_at_s, membership_ends_at_s
from daitn.identity.keys import SigningKey
from daitn.identity.roster import ROSTER, read_roster
from daitn.identity.tls import certificate_files
from daitn.node.config import NodeConfig
from daitn.oam.doctor.diagnoses import Diagnosis, fine, problem, told, warning
from daitn.objects.errors import DaitnError, InvalidInput, NotFound
from daitn.objects.roster import Kind, Roster
from daitn.tools.journal.opening import check_database

__all__ = ["check_membership", "check_state", "kept_roster", "running"]

DAY_S: Final = 86400.0
_SOON_S: Final = 30 * DAY_S
_CERTIFICATE_SOON_S: Final = 3600.0
"""Certificates are renewed half-way through the hours that they hold."""


def running(config: CenterConfig | NodeConfig) -> bool:
    """Whether a process works with the state folder."""
    if not (Path(config.state) / "lock").exists():
        return False
    try:
        FolderLock(Path(config.state)).release()
    except InvalidInput:
        return True
    return False


def check_state(subject: str, config: CenterConfig | NodeConfig) -> Iterator[Diagnosis]:
    """Whether the state folder, and a control centre's database, can be written."""
    state = Path(config.state)
    there = next(path for path in (state, *state.parents) if path.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        yield problem(
            "state",
            subject,
            f"{there} cannot be written by this user",
            f"run as its owner, or `chown` it; a service's user needs it: {state}",
        )
        return
    yield fine("state", subject, f"{state} {'is there' if state.exists() else 'can be made'}")
    if isinstance(config, CenterConfig):
        yield _database(subject, config, state)


def _database(subject: str, config: CenterConfig, state: Path) -> Diagnosis:
    if not config.database and not (state / "jobs.db").exists():
        return fine("database", subject, "there is none yet: the first start makes it")
    try:
        check_database(config.database or f"sqlite:///{state / 'jobs.db'}")
    except DaitnError as error:
        return told("database", subject, error)
    return fine("database", subject, "the database can be written")


def kept_roster(config: CenterConfig | NodeConfig) -> Roster | None:
    """The newest roster that the process has on disk; none if it has none. Raises `DaitnError`."""
    rosters = []
    for path in (Path(config.state) / ROSTER, Path(config.roster) if config.roster else None):
        if path is not None:
            try:
                rosters.append(read_roster(path).opened())
            except NotFound:
                continue
    return max(rosters, key=lambda roster: roster.version, default=None)


def check_membership(
    subject: str, config: CenterConfig | NodeConfig, now_s: float
) -> Iterator[Diagnosis]:
    """Whether the process is a member, with the rights of its file, and for how long."""
    if config.insecure:
        yield warning(
            "roster",
            subject,
            "it runs without a roster: whoever reaches it may do anything",
            "make a network: `daitn network init FOLDER`, then `daitn network admit` this file",
        )
        return
    try:
        roster = kept_roster(config)
    except DaitnError as error:
        yield told("roster", subject, error)
        return
    if roster is None:
        yield problem(
            "roster",
            subject,
            "it has no roster, and knows no members",
            "join a network: `daitn network join INVITATION`",
        )
        return
    yield _lasting("roster", subject, "the roster", roster.until_s - now_s, "`daitn network renew`")
    yield from _member(subject, config, roster, now_s)
    yield from _certificates(subject, config, now_s)


def _member(
    subject: str, config: CenterConfig | NodeConfig, roster: Roster, now_s: float
) -> Iterator[Diagnosis]:
    kind, name = Kind.CENTER, getattr(config, "name", "")
    if isinstance(config, NodeConfig):
        kind, name = Kind.SITE, config.site
    member = next((m for m in roster.members if (m.kind, m.name) == (kind, name)), None)
    again = f"invite it: `daitn network invite --{kind} {name}`, or `daitn network admit` its file"
    if member is None:
        yield problem("member", subject, f"roster {roster.version} has no {kind} {name}", again)
        return
    key = Path(config.state) / "key"
    if key.exists() and SigningKey.at(key).public != member.public_key:
        yield problem(
            "member", subject, f"roster {roster.version} has {name} with another key", again
        )
    yield _lasting("member", subject, "its membership", member.until_s - now_s, again)
    if isinstance(config, NodeConfig) and (lacking := set(config.roles) - set(member.roles)):
        yield problem(
            "member",
            subject,
            f"the roster does not grant it {', '.join(sorted(lacking))}",
            f"{again}; or take the roles out of its file",
        )


def _certificates(
    subject: str, config: CenterConfig | NodeConfig, now_s: float
) -> Iterator[Diagnosis]:
    folder = Path(config.tls)
    if not folder.is_dir():
        yield warning(
            "certificate",
            subject,
            f"there is no {folder}: it can use no `tls/` and `https://` addresses",
            "join the network, or let its operator admit it, once more",
        )
        return
    try:
        certificate_files(str(folder))
        ends_s, membership_s = certificate_ends_at_s(folder), membership_ends_at_s(folder)
    except (DaitnError, OSError, ValueError) as error:
        yield problem(
            "certificate",
            subject,
            f"the certificates in {folder} cannot be read: {error}",
            "join the network, or let its operator admit it, once more",
        )
        return
    yield _lasting(
        "certificate",
        subject,
        "its certificate",
        ends_s - now_s,
        "let it reach its control centre, which renews it",
        soon_s=_CERTIFICATE_SOON_S,
    )
    yield _lasting(
        "certificate",
        subject,
        "what it shows to who connects",
        membership_s - now_s,
        "renew its membership (`daitn network admit` or `invite`), then restart it",
    )


def _lasting(
    check: str, subject: str, what: str, left_s: float, fix: str, soon_s: float = _SOON_S
) -> Diagnosis:
    if left_s <= 0:
        return problem(check, subject, f"{what} ended {-left_s / DAY_S:.1f} days ago", fix)
    if left_s < soon_s:
        return warning(check, subject, f"{what} ends in {left_s / DAY_S:.1f} days", fix)
    return fine(check, subject, f"{what} holds for {left_s / DAY_S:.0f} days")
