"""How a new member joins: an invitation, the request that answers it, and the admission.

The three are files that people send each other. An invitation holds a claim, signed by the root
key, and a key of its own for one use: who has the invitation can sign a request with it, and who
sees the request cannot make another one.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

import msgspec

from daitn.files.output import write_output
from daitn.identity.keys import SigningKey, check_signature
from daitn.identity.roster import RosterFile
from daitn.objects.descriptors import Role
from daitn.objects.errors import Corrupt, InvalidInput, NotFound, Refused
from daitn.objects.moments import DAY_S, Moment
from daitn.objects.roster import Kind, Member
from daitn.objects.wire import canonical, decode, to_json

__all__ = [
    "INVITATION_DAYS",
    "AdmissionLetter",
    "Claim",
    "Invitation",
    "JoinRequest",
    "answer_invitation",
    "check_request",
    "invite",
    "read_letter",
    "write_letter",
]

INVITATION_DAYS: Final = 7
"""Default validity of an invitation."""
_CLAIM, _REQUEST = b"daitn invitation 1\0", b"daitn join request 1\0"


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What an invitee may become."""

    network: str
    id: str
    """Id of the invitation, which is valid for one answer."""
    until_s: Moment
    """When the invitation expires."""
    once: str
    """Public key of the invitation."""
    kind: Kind
    name: str
    roles: tuple[Role, ...] = ()
    owner: str = ""
    jurisdiction: str = ""
    member_days: float
    """Duration of the membership."""

    def member(self, public_key: str, now_s: float, hosts: tuple[str, ...] = ()) -> Member:
        """The member with this key."""
        return Member(
            name=self.name,
            kind=self.kind,
            public_key=public_key,
            until_s=now_s + self.member_days * DAY_S,
            roles=self.roles,
            owner=self.owner,
            jurisdiction=self.jurisdiction,
            hosts=hosts,
        )


class _Letter(msgspec.Struct, frozen=True, kw_only=True, tag_field="daitn"):
    """A file that people send each other."""


class Invitation(_Letter, frozen=True, kw_only=True, tag="invitation"):
    """From the operator to the new member: anybody who has it can take the place."""

    claim: bytes
    signature: str
    """The root key's signature of the claim."""
    once: bytes
    """The invitation's private key."""
    roster: RosterFile
    center: tuple[str, ...] = ()
    """Endpoints of the control centre."""

    def read(self) -> Claim:
        """The claim, if the network's root signed it. Raises `Corrupt`."""
        return _opened(self.claim, self.signature, self.roster.root)


class JoinRequest(_Letter, frozen=True, kw_only=True, tag="request"):
    """From the new member to the operator. Not secret."""

    claim: bytes
    signature: str
    public_key: str
    """The new member's public key."""
    certificate: str = ""
    """A request for a certificate, PEM; none without TLS."""
    by_once: str
    by_key: str
    """Signatures of the above, by the invitation's key and by the new member's."""


class AdmissionLetter(_Letter, frozen=True, kw_only=True, tag="admission"):
    """From the operator to the new member. Not secret."""

    public_key: str
    roster: RosterFile
    authority: str = ""
    membership: str = ""
    issuer: str = ""
    """Certificates, PEM; the last one for a control centre."""


def invite(
    claim: Claim, root: SigningKey, roster: RosterFile, center: tuple[str, ...]
) -> Invitation:
    """Sign an invitation; `id` and `once` of the claim are filled in."""
    raw = secrets.token_bytes(32)
    filled = msgspec.structs.replace(
        claim, id=secrets.token_hex(16), once=SigningKey.of(raw).public
    )
    text = canonical(filled)
    return Invitation(
        claim=text,
        signature=root.sign(_CLAIM + text),
        once=raw,
        roster=roster,
        center=center,
    )


def answer_invitation(
    invitation: Invitation, key: SigningKey, certificate: str = ""
) -> JoinRequest:
    """Request membership for this key. `certificate`: a request for one, PEM.

    Raises `Corrupt` for an invitation that the network's root did not sign.
    """
    invitation.read()
    try:
        once = SigningKey.of(invitation.once)
    except ValueError:
        raise Corrupt("the invitation's key is damaged", field="once", fix=_ANEW) from None
    message = _request_message(invitation.claim, key.public, certificate)
    return JoinRequest(
        claim=invitation.claim,
        signature=invitation.signature,
        public_key=key.public,
        certificate=certificate,
        by_once=once.sign(message),
        by_key=key.sign(message),
    )


def check_request(request: JoinRequest, network: str, root: str, now_s: float) -> Claim:
    """The claim that a request answers.

    Raises `Corrupt` if a signature does not match, `Refused` if the invitation has expired or is of
    another network.
    """
    claim = _opened(request.claim, request.signature, root)
    message = _request_message(request.claim, request.public_key, request.certificate)
    check_signature(claim.once, request.by_once, message)
    check_signature(request.public_key, request.by_key, message)
    if claim.network != network:
        raise Refused(
            f"the invitation is for the network {claim.network}, not {network}",
            field="network",
            fix="name the folder of that network with --network",
        )
    if now_s >= claim.until_s:
        raise Refused("the invitation has expired", field="until_s", fix=_ANEW)
    return claim


_ANEW = "ask the network's operator for a new one: `daitn network invite`"


def write_letter(path: Path, letter: Invitation | JoinRequest | AdmissionLetter) -> None:
    """Write a letter as JSON; an invitation is readable by its owner only. Raises
    `InvalidInput`."""
    private = isinstance(letter, Invitation)
    write_output(path, to_json(letter).encode(), private=private)


def read_letter(path: Path) -> Invitation | JoinRequest | AdmissionLetter:
    """Read a letter. Raises `NotFound`, and `InvalidInput` for invalid content."""
    try:
        return msgspec.json.decode(
            path.read_bytes(), type=Invitation | JoinRequest | AdmissionLetter
        )
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}", field=str(path), fix="check the path") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = f"{path} is not an invitation, request or admission: {error}"
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror}"
    raise InvalidInput(problem, field=str(path), fix="have the file sent again")


def _opened(claim: bytes, signature: str, root: str) -> Claim:
    check_signature(root, signature, _CLAIM + claim)
    return decode(claim, Claim)


def _request_message(claim: bytes, public_key: str, certificate: str) -> bytes:
    return _REQUEST + canonical((claim, public_key, certificate))
