"""Checks of a process's state folder: membership, certificates, database."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from daitn.center.config import CenterConfig
from daitn.files.lock import FolderLock
from daitn.files.state_folder import CenterState, ProcessState
from daitn.identity.certificates import certificate_ends_at_s, membership_ends_at_s
from daitn.identity.keys import SigningKey
from daitn.identity.roster import ROSTER, RosterFile, read_roster
from daitn.identity.tls import certificate_files
from daitn.node.config import NodeConfig
from daitn.oam.doctor.diagnoses import Check, Diagnosis, fine, problem, refused, warning
from daitn.oam.doctor.fixes import join, kind_and_name, member_again, renew
from daitn.objects.addresses import is_encrypted
from daitn.objects.errors import DaitnError, InvalidInput, NotFound
from daitn.objects.moments import DAY_S
from daitn.objects.roster import Member, Roster
from daitn.objects.text import counted
from daitn.tools.journal.opening import check_database

__all__ = ["check_data", "check_membership", "check_state", "kept_key", "kept_roster", "running"]

_SOON_S: Final = 30 * DAY_S
_CERTIFICATE_SOON_S: Final = 3600.0
"""Certificates are renewed halfway through their lifetime."""


def running(config: CenterConfig | NodeConfig) -> bool:
    """Whether a process works with the state folder."""
    if not (Path(config.state) / ProcessState.LOCK).exists():
        return False
    try:
        FolderLock(Path(config.state), restores=True).release()
    except InvalidInput:
        return True
    return False


def check_state(subject: str, config: CenterConfig | NodeConfig) -> Iterator[Diagnosis]:
    """Whether the state folder, and a control centre's database, can be written."""
    state = Path(config.state)
    nearest = next(path for path in (state, *state.parents) if path.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        yield problem(
            Check.STATE,
            subject,
            f"{nearest} cannot be written by this user",
            f"run as its owner, or `chown` it; a service's user needs it: {state}",
        )
        return
    if (state / ProcessState.RESTORING).exists():
        yield problem(
            Check.STATE,
            subject,
            f"a restore into {state} did not end, so part of its files is missing",
            "restore the backup again with `daitn restore`",
        )
        return
    yield fine(Check.STATE, subject, f"{state} {'is there' if state.exists() else 'can be made'}")
    if isinstance(config, CenterConfig):
        yield _database(subject, config, state)


def _database(subject: str, config: CenterConfig, state: Path) -> Diagnosis:
    if not config.database and not (state / CenterState.DATABASE).exists():
        return fine(Check.DATABASE, subject, "there is none yet: the first start makes it")
    try:
        check_database(config.database_url)
    except DaitnError as error:
        return refused(Check.DATABASE, subject, error)
    return fine(Check.DATABASE, subject, "the database can be written")


def check_data(subject: str, config: NodeConfig) -> Iterator[Diagnosis]:
    """Whether this user can read what a node's file names."""
    named = [(f"data set {dataset.name}", dataset.path) for dataset in config.datasets]
    named += [(f"test set {test.topic}", test.path) for test in config.tests]
    for what, path in named:
        if not os.access(path, os.R_OK):
            yield problem(
                Check.DATA,
                subject,
                f"{what}: {path} cannot be read",
                "correct the path, or let the user who runs the node read it",
            )


def kept_roster(config: CenterConfig | NodeConfig) -> RosterFile | None:
    """The newest roster that the process has on disk; none if it has none. Raises `DaitnError`."""
    files: list[tuple[int, RosterFile]] = []
    for path in (Path(config.state) / ROSTER, Path(config.roster) if config.roster else None):
        if path is not None:
            try:
                file = read_roster(path)
            except NotFound:
                continue
            if any(other.root != file.root for _, other in files):
                raise InvalidInput(
                    f"{config.roster} and {config.state} have rosters of different networks",
                    field="roster",
                    fix="name another state folder, or the roster of its own network",
                )
            files.append((file.opened().version, file))
    return max(files, key=lambda found: found[0])[1] if files else None


def kept_key(config: CenterConfig | NodeConfig) -> SigningKey | None:
    """The key of the process; none if it has none yet. Raises `InvalidInput` for one that this user
    cannot read."""
    path = Path(config.state) / ProcessState.KEY
    try:
        return SigningKey.at(path) if path.exists() else None
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read: {error.strerror}",
            field="key",
            fix="run as the user who runs the process",
        ) from None


def check_membership(
    subject: str, config: CenterConfig | NodeConfig, file: Path, now_s: float
) -> Iterator[Diagnosis]:
    """Whether the process of a file is a member, with the rights of its file, and for how long."""
    if config.insecure:
        yield warning(
            Check.ROSTER,
            subject,
            "it runs without a roster: anyone who reaches it may do anything",
            "make a network: `daitn network init FOLDER --name NAME`; take `insecure` out of the "
            f"file; then `daitn network admit {shlex.quote(str(file))} --network FOLDER`",
        )
        return
    try:
        kept = kept_roster(config)
        roster = kept.opened() if kept else None
    except DaitnError as error:
        yield refused(Check.ROSTER, subject, error)
        return
    if roster is None:
        yield problem(
            Check.ROSTER,
            subject,
            "it has no roster and knows no members",
            f"join a network: {join(config)}; {member_again(config, file)}",
        )
        return
    lasts = "the operator runs `daitn network renew`"
    yield _lasting(Check.ROSTER, subject, "the roster", roster.until_s - now_s, lasts)
    yield from _member(subject, config, roster, file, now_s)
    yield from _certificates(subject, config, file, now_s)


def _member(
    subject: str, config: CenterConfig | NodeConfig, roster: Roster, file: Path, now_s: float
) -> Iterator[Diagnosis]:
    kind, name = kind_and_name(config)
    member = next((m for m in roster.members if (m.kind, m.name) == (kind, name)), None)
    again = member_again(config, file)
    if member is None:
        yield problem(Check.MEMBER, subject, f"roster {roster.version} has no {kind} {name}", again)
        return
    try:
        key = kept_key(config)
    except DaitnError as error:
        yield refused(Check.MEMBER, subject, error)
        return
    if key is not None and key.public != member.public_key:
        yield problem(
            Check.MEMBER,
            subject,
            f"roster {roster.version} has {name} with another key",
            "restore the key that it had; or let the new one take its place: "
            f"{member_again(config, file, replace=True)}",
        )
    left_s = member.until_s - now_s
    yield _lasting(
        Check.MEMBER, subject, "its membership", left_s, f"the operator runs {renew(config)}"
    )
    yield from _rights(subject, config, member, again)


def _rights(
    subject: str, config: CenterConfig | NodeConfig, member: Member, again: str
) -> Iterator[Diagnosis]:
    """What a site's file says beyond its membership."""
    if isinstance(config, NodeConfig) and (lacking := set(config.roles) - set(member.roles)):
        yield problem(
            Check.MEMBER,
            subject,
            f"the roster does not grant it {', '.join(sorted(lacking))}",
            f"{again}; or remove the roles from its file",
        )


def _certificates(
    subject: str, config: CenterConfig | NodeConfig, file: Path, now_s: float
) -> Iterator[Diagnosis]:
    folder, again = Path(config.tls), member_again(config, file)
    if not folder.is_dir():
        addresses = [address for _, address in config.listen_addresses]
        addresses += config.center if isinstance(config, NodeConfig) else ()
        needed = [address for address in addresses if is_encrypted(address)]
        yield (problem if needed else warning)(
            Check.CERTIFICATE,
            subject,
            f"there is no {folder}: it can use no `tls/` and `https://` addresses"
            + (f", as {needed[0]}" if needed else ""),
            again,
        )
        return
    try:
        certificate_files(str(folder))
        ends_s, membership_s = certificate_ends_at_s(folder), membership_ends_at_s(folder)
    except (DaitnError, OSError, ValueError) as error:
        yield problem(
            Check.CERTIFICATE,
            subject,
            error.problem if isinstance(error, DaitnError) else f"{folder}: {error}",
            again,
        )
        return
    yield _lasting(
        Check.CERTIFICATE,
        subject,
        "its certificate",
        ends_s - now_s,
        "let it reach its control centre, which renews it"
        if isinstance(config, NodeConfig)
        else "start it: it renews its own",
        soon_s=_CERTIFICATE_SOON_S,
    )
    yield _lasting(
        Check.CERTIFICATE,
        subject,
        "what it shows to clients",
        membership_s - now_s,
        f"the operator runs {renew(config)}; it gets a new one within a day, and shows that once "
        "it is restarted"
        if membership_s > now_s
        else again,
    )


def _lasting(
    check: Check, subject: str, what: str, left_s: float, fix: str, soon_s: float = _SOON_S
) -> Diagnosis:
    if left_s <= 0:
        return problem(check, subject, f"{what} ended {-left_s / DAY_S:.1f} days ago", fix)
    if left_s < soon_s:
        return warning(check, subject, f"{what} ends in {left_s / DAY_S:.1f} days", fix)
    return fine(check, subject, f"{what} holds for {counted(round(left_s / DAY_S), 'day')}")
