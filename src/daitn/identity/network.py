"""The folder of a network's operator: the root key, and what it signed.

::

    root-key             signs rosters and invitations; nobody else may read it
    roster.json          the current roster
    keys/{kind}-{name}   keys of members that act from this folder, such as its operator
    used                 invitations that were answered, one id a line
    authority/           issues the members' TLS certificates, see `identity/certificates.py`
    tls/                 the operator's
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from daitn.files.atomic import make_folder, replace_file
from daitn.files.lock import FolderLock
from daitn.files.state_folder import ProcessState
from daitn.identity.certificates import LASTS_S, Issuer, found_authority, holds, keep, requested
from daitn.identity.keys import SigningKey, key_mark
from daitn.identity.roster import ROSTER, RosterFile, read_roster, sign_roster, write_roster
from daitn.objects.addresses import is_loopback
from daitn.objects.errors import InvalidInput, NotFound, Refused
from daitn.objects.identifiers import CENTER_SITE, checked_name
from daitn.objects.moments import DAY_S
from daitn.objects.roster import Kind, Member, Roster
from daitn.objects.unknown_fields import reads

__all__ = [
    "MEMBER_DAYS",
    "ROSTER_DAYS",
    "TLS",
    "NetworkFolder",
    "inviting",
    "key_path",
    "may_admit",
    "own_key",
    "persons_certificates",
]

ROSTER_DAYS: Final = 90
"""Default validity of a roster. A process cut off from newer ones trusts it for at most this long,
and the operator can be away for this long."""
MEMBER_DAYS: Final = 365

TLS = ProcessState.TLS
"""Folder of a member's certificates, in the one with its key."""
_ROOT_KEY, _KEYS, _USED, _AUTHORITY = "root-key", "keys", "used", "authority"


class NetworkFolder:
    """A network's folder. Every change signs a new version of the roster, and renews it.

    Changes by several processes at once follow each other.
    """

    def __init__(self, folder: Path) -> None:
        """Raises `NotFound` if there is no root key."""
        if not (folder / _ROOT_KEY).is_file():
            raise NotFound(
                f"there is no root key of a network in {folder}",
                field="--network",
                fix=f"name the network's folder, or create it: `daitn network init {folder}`",
            )
        self.path = folder
        self.root = SigningKey.at(folder / _ROOT_KEY)

    @classmethod
    def found(
        cls, folder: Path, network: str, operator: str, now_s: float, days: float = ROSTER_DAYS
    ) -> NetworkFolder:
        """Create a network with one operator. Raises `InvalidInput` if the folder already has one,
        or a name is not usable."""
        checked_name(network, "--name")
        checked_name(operator, "--operator")
        make_folder(folder)
        with FolderLock(folder, waits=True):
            if (folder / ROSTER).exists():
                raise InvalidInput(
                    f"{folder} already holds a network", field="FOLDER", fix="name another folder"
                )
            root = SigningKey.at(folder / _ROOT_KEY)
            found_authority(folder / _AUTHORITY)
            key = SigningKey.at(key_path(folder, Kind.OPERATOR, operator))
            roster = Roster(
                network=network,
                version=1,
                issued_at_s=now_s,
                until_s=now_s + days * DAY_S,
                members=(
                    Member(
                        name=operator,
                        kind=Kind.OPERATOR,
                        public_key=key.public,
                        until_s=now_s + MEMBER_DAYS * DAY_S,
                    ),
                ),
            )
            file = RosterFile(root=root.public, signed=sign_roster(roster, root))
            write_roster(folder / ROSTER, file)
        founded = cls(folder)
        founded.equip(Kind.OPERATOR, operator)
        return founded

    @property
    def authority(self) -> Path:
        """Folder of the authority for TLS certificates."""
        return self.path / _AUTHORITY

    def file(self) -> RosterFile:
        """The current roster, signed. Raises like `read_roster`."""
        return read_roster(self.path / ROSTER)

    def roster(self) -> Roster:
        """The current roster; it may have expired."""
        return self.file().opened()

    def admit(self, *members: Member, now_s: float, replace: bool = False) -> Roster:
        """Add members, or update them: each name of a kind stays with its key.

        Members that are there already, in everything but the end of their time, make no new
        version. `replace`: a new key may take an earlier one's place. Raises `Refused` for another
        key without it, and `InvalidInput` for an unusable name or a key that another member has.
        """
        for member in members:
            checked_name(member.name, "name")

        def change(roster: Roster) -> tuple[Member, ...]:
            known = {(m.kind, m.name): m for m in roster.members}
            for member in members:
                before = known.get((member.kind, member.name))
                _check_key(before, member, replace)
                if before is None or _is_due(before, member, now_s):
                    known[member.kind, member.name] = member
            return tuple(known.values())

        return self._change(change, now_s)

    def equip(
        self, kind: Kind, name: str, tls: Path | None = None, lasts_s: float = LASTS_S
    ) -> None:
        """Put a member's certificates into the folder `tls`, unless it has valid ones.

        By default the network's own, with which commands connect. Raises `NotFound` if there is no
        such member.
        """
        folder = self.path / TLS if tls is None else tls
        member = _member(self.roster(), kind, name)
        if holds(folder, member):
            return
        make_folder(folder)
        authority = Issuer.authority(self.authority)
        issued = authority.certify(requested(folder), member, lasts_s)
        issuer = authority.delegate(member) if kind is Kind.CENTER else ""
        keep(folder, issued, issuer=issuer)

    def admit_invited(
        self, invitation: str, member: Member, now_s: float, *, replace: bool = False
    ) -> Roster:
        """Add a member who answers the invitation with this id.

        `replace`: its key may take an earlier one's place. Raises `Refused` for another key
        without it, for a host that is another's, and if the invitation was answered before; its
        member may answer it again.
        """
        used = self.path / _USED

        def change(roster: Roster) -> tuple[Member, ...]:
            ids = used.read_text().split() if used.exists() else []
            members = {_identity(m): m for m in roster.members}
            known = members.get(_identity(member))
            _check_hosts(member, tuple(m for m in roster.members if m is not known))
            if invitation in ids:
                if known is not None and known.public_key == member.public_key:
                    return roster.members
                raise Refused(
                    "the invitation was already answered",
                    field="invitation",
                    fix="make a new one: `daitn network invite`",
                )
            _check_key(known, member, replace)
            replace_file(used, "\n".join([*ids, invitation, ""]).encode())
            # At the place of an earlier one: the first control centre stays the first.
            return tuple({**members, _identity(member): member}.values())

        return self._change(change, now_s)

    def revoke(self, kind: Kind, name: str, now_s: float) -> Roster:
        """Remove a member. Raises `NotFound` if there is none."""

        def change(roster: Roster) -> tuple[Member, ...]:
            _member(roster, kind, name)
            return tuple(m for m in roster.members if (m.kind, m.name) != (kind, name))

        return self._change(change, now_s)

    def renew(
        self,
        now_s: float,
        *,
        roster_days: float | None = None,
        member: tuple[Kind, str] | None = None,
        member_days: float = MEMBER_DAYS,
    ) -> Roster:
        """Extend the roster, for as long as before or for `roster_days`; and with `member`, by kind
        and name, that membership for `member_days`. Raises `NotFound` if there is no such member.
        """

        def change(roster: Roster) -> tuple[Member, ...]:
            if member is None:
                return roster.members
            extended = msgspec.structs.replace(
                _member(roster, *member), until_s=now_s + member_days * DAY_S
            )
            return tuple(extended if (m.kind, m.name) == member else m for m in roster.members)

        return self._change(change, now_s, anyway=True, days=roster_days)

    def _change(
        self,
        change: Callable[[Roster], tuple[Member, ...]],
        now_s: float,
        *,
        anyway: bool = False,
        days: float | None = None,
    ) -> Roster:
        with FolderLock(self.path, waits=True):
            file = self.file()
            roster = file.opened()
            members = change(roster)
            if members == roster.members and not anyway:
                return roster
            if not reads(file.signed.roster, roster, later=False):
                raise Refused(
                    "a later release wrote the roster, and states more than is known here",
                    field="roster",
                    fix="change it with that release, or a later one: this one would lose that",
                )
            lasts_s = roster.until_s - roster.issued_at_s if days is None else days * DAY_S
            changed = Roster(
                network=roster.network,
                version=roster.version + 1,
                issued_at_s=now_s,
                until_s=now_s + lasts_s,
                members=members,
            )
            signed = sign_roster(changed, self.root)
            write_roster(self.path / ROSTER, RosterFile(root=self.root.public, signed=signed))
            return changed


def inviting(kind: Kind, name: str) -> str:
    """The command with which an operator invites a member."""
    match kind:
        case Kind.SITE:
            option = f"--site {name}"
        case Kind.CENTER:
            option = "--control-center"
            if name != CENTER_SITE:
                option = f"--control-center-name {name}"
        case _:
            option = f"--{kind}-name {name}"
    return f"daitn network invite {option}"


def may_admit(folder: Path) -> bool:
    """Whether this user may read the network's root key, and so admit members."""
    return os.access(folder / _ROOT_KEY, os.R_OK)


def own_key(folder: Path, kind: Kind, name: str, now_s: float) -> SigningKey:
    """The key with which a member acts from this folder.

    The holder of the root key may be any owner that nobody else is: the owner is made a member.
    Raises `Refused` if the folder has no such key, or the owner has another one.
    """
    path = key_path(folder, kind, name)
    if kind is Kind.OWNER and may_admit(folder):
        members = NetworkFolder(folder).roster().members
        if not path.exists() and any((m.kind, m.name) == (kind, name) for m in members):
            raise Refused(
                f"{name} joined with a key that is not on this machine",
                field="owner",
                fix=f"have {name} run the command, with DAITN_NETWORK or DAITN_KEY set; or name "
                f"an owner of your own",
            )
        key = SigningKey.at(path)
        until_s = now_s + MEMBER_DAYS * DAY_S
        member = Member(name=name, kind=kind, public_key=key.public, until_s=until_s)
        NetworkFolder(folder).admit(member, now_s=now_s)
        return key
    if not path.exists():
        raise Refused(
            f"{folder} holds no key of the {kind} {name}",
            field="DAITN_NETWORK",
            fix="name the folder that `daitn network join` made, or ask the network's operator "
            f"for an invitation: `{inviting(kind, name)}`",
        )
    return SigningKey.at(path)


def persons_certificates(folder: Path) -> Path:
    """The folder of certificates for commands that act from `folder`.

    Anyone who may read the root key renews them, as the network's operator.
    """
    if may_admit(folder):
        network = NetworkFolder(folder)
        for member in network.roster().members:
            own = key_path(folder, member.kind, member.name)
            if member.kind is Kind.OPERATOR and own.is_file():
                network.equip(member.kind, member.name)
                break
    return folder / TLS


def key_path(folder: Path, kind: Kind, name: str) -> Path:
    """Path of the key of a member that acts from a folder."""
    return folder / _KEYS / f"{kind}-{checked_name(name, str(kind))}"


def _identity(member: Member) -> tuple[Kind, str]:
    return member.kind, member.name


def _member(roster: Roster, kind: Kind, name: str) -> Member:
    for member in roster.members:
        if (member.kind, member.name) == (kind, name):
            return member
    names = ", ".join(sorted(m.name for m in roster.members if m.kind is kind)) or "none"
    raise NotFound(f"the roster has no {kind} {name}", field="NAME", fix=f"use one of: {names}")


def _check_key(before: Member | None, member: Member, replace: bool) -> None:
    """Raise `Refused` unless a member's key is unchanged, or may be replaced."""
    if replace or before is None or before.public_key == member.public_key:
        return
    raise Refused(
        f"the {member.kind} {member.name} is a member with another key "
        f"({key_mark(before.public_key)}), which the new one would cut off",
        field="public_key",
        fix="if it is the same member with a new key, admit it with `daitn network admit FILE "
        "--replace`; if not, give the new member another name",
    )


def _check_hosts(member: Member, others: Iterable[Member]) -> None:
    """Raise `Refused` for a host that belongs to a member of another owner.

    Else its requester could pass for that member to clients that know hosts only.
    """
    taken = {
        host.lower(): other
        for other in others
        for host in other.hosts
        if (other.kind, other.owner) != (Kind.SITE, member.owner)
    }
    for host in member.hosts:
        other = taken.get(host.lower())
        if other is not None and not is_loopback(host):
            raise Refused(
                f"the host {host} belongs to the {other.kind} {other.name}",
                field="--host",
                fix="answer the invitation with another --host, or revoke the other member first",
            )


def _is_due(before: Member, member: Member, now_s: float) -> bool:
    """Whether a member must be rewritten: it differs, or more than half of its time is over."""
    same = msgspec.structs.replace(before, until_s=member.until_s) == member
    return not same or before.until_s - now_s < (member.until_s - now_s) / 2
