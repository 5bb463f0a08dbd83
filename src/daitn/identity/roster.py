"""Signs and checks rosters with a network's root key, and reads and writes them as files."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from daitn.files.atomic import make_folder, replace_file
from daitn.files.state_folder import ProcessState
from daitn.identity.keys import SigningKey, check_signature
from daitn.objects.errors import Corrupt, InvalidInput, NotFound, Refused
from daitn.objects.roster import Roster, SignedRoster
from daitn.objects.unknown_fields import reads
from daitn.objects.wire import canonical, decode, to_json

__all__ = [
    "ROSTER",
    "RosterFile",
    "open_roster",
    "read_roster",
    "sign_roster",
    "write_roster",
]

ROSTER = ProcessState.ROSTER
"""Name of the file in a network's folder and in a process's state folder."""

_PURPOSE = b"daitn roster 1\0"
"""Domain separation of these signatures."""


class RosterFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A roster in a file, with the key for checking it and its successors.

    The person who puts the file there decides which network the process belongs to.
    """

    root: str
    """Public key of the network's root, base64."""
    signed: SignedRoster

    def opened(self, now_s: float = -math.inf) -> Roster:
        """The roster. Raises like `open_roster`; without `now_s` it may have expired."""
        return open_roster(self.signed, self.root, now_s)


def read_roster(path: Path) -> RosterFile:
    """Read a roster's file. Raises `NotFound`, and `InvalidInput` for invalid content."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=RosterFile)
    except FileNotFoundError:
        raise NotFound(
            f"there is no roster {path}", field="roster", fix="get it from the network's operator"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = f"{path} holds no roster: {error}"
    except OSError as error:
        problem = f"the roster {path} cannot be read: {error.strerror}"
    raise InvalidInput(problem, field="roster", fix="restore the file, or get the current one")


def write_roster(path: Path, file: RosterFile) -> None:
    """Write a roster's file, replacing an earlier one. Raises `OSError`."""
    make_folder(path.parent)
    replace_file(path, to_json(file).encode())


def sign_roster(roster: Roster, root: SigningKey) -> SignedRoster:
    """Sign a roster with the network's root key. Raises `Corrupt` for an unreadable one."""
    text = canonical(roster)
    decode(text, Roster)
    return SignedRoster(roster=text, signature=root.sign(_PURPOSE + text))


def open_roster(
    signed: SignedRoster, root_public: str, now_s: float, known: Roster | None = None
) -> Roster:
    """The roster, if the root key signed it and it is no older than the `known` one.

    Raises `Corrupt` for a wrong signature or other bytes, `Refused` for an expired roster, one of
    another network, or an older version (a rollback).
    """
    try:
        check_signature(root_public, signed.signature, _PURPOSE + signed.roster)
    except Corrupt:
        raise Corrupt(
            "the network's root key did not sign this roster: it was changed, or the key is that "
            "of another network",
            field="roster",
            fix="get the roster again from the network's operator, and compare its root key with "
            "theirs",
        ) from None
    roster = decode(signed.roster, Roster)
    if not reads(signed.roster, roster, later=True):
        raise Corrupt("the roster is not in canonical form", field="roster", fix="sign it again")
    if now_s >= roster.until_s:
        raise Refused(
            "the roster has expired",
            field="roster",
            fix="renew it: `daitn network renew`; and check this machine's clock",
        )
    if known is None:
        return roster
    if roster.network != known.network:
        raise Refused(
            f"the roster is for the network {roster.network}, not {known.network}",
            field="roster",
            fix="join the other network with another state folder",
        )
    if roster.version < known.version:
        raise Refused(
            f"roster {roster.version} is older than {known.version}, which is known here",
            field="roster",
            fix="get the current roster from the network's operator",
        )
    return roster
