"""The identity behind a command: its key and its network."""

from __future__ import annotations

import contextlib
import difflib
import functools
import os
from pathlib import Path

from daitn.cli.known_networks import OPERATOR, network_of
from daitn.identity.keys import SigningKey
from daitn.identity.network import key_path, may_admit, own_key, persons_certificates
from daitn.identity.roster import ROSTER, read_roster
from daitn.objects.errors import DaitnError, NotFound, Refused
from daitn.objects.identifiers import SiteId
from daitn.objects.roster import ADMISSION_FIX, Kind
from daitn.objects.wire import encode
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.tools.fabric.identity import Identity
from daitn.tools.fabric.protocol import Fabric
from daitn.tools.roster import LiveRoster

__all__ = [
    "check_owner",
    "network_identity",
    "owner_identity",
    "person_identity",
    "refresh_roster",
    "roster_file",
    "rostered_name",
    "site_keys",
    "tls_folder",
]

_MOST_NAMED = 10


def tls_folder(endpoint: str) -> str:
    """The folder of certificates with which commands connect to an endpoint; none if no network is
    known there."""
    folder = _folder(endpoint)
    if folder is None:
        return ""
    return str(persons_certificates(folder))


def person_identity(endpoint: str) -> Identity | None:
    """The caller of a command: the holder of the key that `DAITN_KEY` names, or the operator.

    None if no network is known at this endpoint: then nothing is signed. Raises `NotFound` if
    `DAITN_KEY` or `DAITN_NETWORK` names nothing.
    """
    folder = _folder(endpoint)
    if folder is None:
        return None
    named = os.environ.get("DAITN_KEY")
    path = Path(named) if named else _persons_key(folder)
    if not path.is_file():
        raise NotFound(
            f"there is no key {path}", field="DAITN_KEY", fix="name the file of your key"
        )
    return _identity(folder, SigningKey.at(path))


def network_identity(roster: Path) -> Identity | None:
    """The operator of the network with this roster, whatever network commands otherwise use.

    None if its folder has no key.
    """
    folder = roster.parent
    path = _persons_key(folder)
    if roster.name != ROSTER or not path.is_file():
        return None
    return _identity(folder, SigningKey.at(path))


def roster_file(endpoint: str) -> Path | None:
    """The roster of the network at an endpoint; none if none is known."""
    folder = _folder(endpoint)
    return None if folder is None else folder / ROSTER


def site_keys(endpoint: str) -> dict[SiteId, str] | None:
    """The sites' public keys, from the roster of the network at an endpoint; none if none is known.

    A membership that ended counts: what a site signed before then, it signed.
    """
    folder = _folder(endpoint)
    if folder is None:
        return None
    members = read_roster(folder / ROSTER).opened().members
    return {SiteId(m.name): m.public_key for m in members if m.kind is Kind.SITE}


def rostered_name(endpoint: str, identity: Identity) -> str:
    """The caller's name in the roster of the network's folder, even if the roster or the membership
    has expired: the control centre may have a newer one. Raises `Refused`."""
    folder = _folder(endpoint)
    members = read_roster(folder / ROSTER).opened().members if folder else ()
    for member in members:
        if member.public_key == identity.key.public:
            return member.name
    raise Refused(
        f"the roster of {identity.network} does not have this key",
        field="sender",
        fix=ADMISSION_FIX,
    )


def _persons_key(folder: Path) -> Path:
    """The operator's key if there is one, or else that of the person who joined with this
    folder."""
    operator = key_path(folder, Kind.OPERATOR, OPERATOR)
    if operator.is_file():
        return operator
    return next(iter(sorted(operator.parent.glob("*"))), operator)


def owner_identity(endpoint: str, owner: str) -> Identity | None:
    """A model owner: the holder of the key that `DAITN_KEY` names, or of the owner's in the folder.

    On the machine that founded the network, anyone who may read its root key may be any owner. None
    as for `person_identity`. Raises `Refused` if the folder has no key of this owner.
    """
    folder = _folder(endpoint)
    if folder is None or os.environ.get("DAITN_KEY"):
        return person_identity(endpoint)
    return _identity(folder, own_key(folder, Kind.OWNER, owner, clock.wall_s()))


async def check_owner(endpoint: str, owner: str, field: str, to_make: str) -> None:
    """Raise `NotFound` if `owner`, whom a person named in `field`, would have to be made, because
    no member and no site's owner in the roster is called so: the name may be misspelt. `to_make`:
    how to make an owner on purpose."""
    folder = _folder(endpoint)
    if folder is None or os.environ.get("DAITN_KEY") or not may_admit(folder):
        return  # It acts with a key that exists, or not at all.
    members = read_roster(folder / ROSTER).opened().members
    known = {member.name if member.kind is Kind.OWNER else member.owner for member in members}
    if owner in known:
        return
    names = sorted(known - {""})
    near = difflib.get_close_matches(owner, names)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    shown = ", ".join([*names[:_MOST_NAMED], *["..."] * (len(names) > _MOST_NAMED)])
    raise NotFound(
        f"this network has no owner {owner}",
        field=field,
        fix=f"{meant}known owners: {shown or 'none'}; {to_make}",
    )


async def refresh_roster(endpoint: str, carrier: Fabric, *, tell: bool) -> None:
    """Ask the control centre for a newer roster than that of the network's folder.

    Else new members would know nobody who was admitted later, and nobody at all once the roster
    has ended. `tell`: also publish it, as it may have a member that was just made here.
    """
    folder = _folder(endpoint)
    if folder is None:
        return
    with contextlib.suppress(DaitnError):
        await _roster(folder).refresh(carrier, asks=True)
    if tell:
        await carrier.publish(keys.ROSTER, encode(read_roster(folder / ROSTER).signed))


def _identity(folder: Path, key: SigningKey) -> Identity:
    roster = _roster(folder)
    return Identity(key, roster.network, roster.members)


def _roster(folder: Path) -> LiveRoster:
    return _roster_at(folder, (folder / ROSTER).stat().st_mtime_ns)


@functools.cache
def _roster_at(folder: Path, changed_ns: int) -> LiveRoster:
    return LiveRoster(folder)


def _folder(endpoint: str) -> Path | None:
    try:
        return network_of(endpoint)
    except NotFound:
        if os.environ.get("DAITN_NETWORK"):
            raise
        return None
