"""Signs and checks grants of names and mandates, and makes the tokens that clients show."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from daitn.identity.keys import SigningKey, check_signature_once, raw_of
from daitn.objects.descriptors import Role
from daitn.objects.errors import Corrupt, Refused
from daitn.objects.grants import (
    CenterMandate,
    DeploymentGrant,
    Mandate,
    NameGrant,
    PlaceGrant,
    SealingKey,
    Signed,
    UseLimits,
)
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.roster import Kind, Member
from daitn.objects.wire import canonical, decode

__all__ = [
    "CENTER_TOKEN_PREFIX",
    "TOKEN_PREFIX",
    "GrantBook",
    "new_center_token",
    "new_token",
    "read_signed",
    "sign_statement",
    "signed_text",
    "split_token",
]

TOKEN_PREFIX: Final = "daitn-"  # noqa: S105
CENTER_TOKEN_PREFIX: Final = "daitn-api-"  # noqa: S105
_MOST_TEXT = 8192
_SECRET_BYTES = 24
_AHEAD_S = 120.0
"""Tolerance for clock differences; machines whose clocks differ by more accept nothing from each
other."""

_DOMAINS: Final[Mapping[type, bytes]] = {
    DeploymentGrant: b"daitn deployment grant 2\0",
    NameGrant: b"daitn name grant 1\0",
    Mandate: b"daitn mandate 1\0",
    PlaceGrant: b"daitn place grant 1\0",
    SealingKey: b"daitn sealing key 1\0",
    CenterMandate: b"daitn center mandate 1\0",
}
"""Domain separation of these signatures."""

_SIGNERS: Final[Mapping[type, tuple[Kind, ...]]] = {
    DeploymentGrant: (Kind.OWNER,),
    NameGrant: (Kind.CENTER,),
    Mandate: (Kind.OWNER,),
    PlaceGrant: (Kind.CENTER,),
    SealingKey: (Kind.SITE,),
    CenterMandate: (Kind.OWNER, Kind.OPERATOR),
}

T = TypeVar("T", DeploymentGrant, NameGrant, Mandate, PlaceGrant, SealingKey, CenterMandate)


def sign_statement(
    statement: DeploymentGrant | NameGrant | Mandate | PlaceGrant | SealingKey | CenterMandate,
    key: SigningKey,
) -> Signed:
    """Sign a statement."""
    text = canonical(statement)
    signature = key.sign(_DOMAINS[type(statement)] + text)
    return Signed(statement=text, public_key=key.public, signature=signature)


@dataclass(frozen=True)
class GrantBook:
    """Checks grants and mandates against one network's roster."""

    network: str
    members: Callable[[], Mapping[str, Member]]
    """The current members, by public key."""
    wall_s: Callable[[], float]

    def naming(self) -> Member | None:
        """The control centre that assigns bare names: the roster's first. None if there is none.

        Others give none, so that none of them can move a name.
        """
        return next((m for m in self.members().values() if m.kind is Kind.CENTER), None)

    def read(self, signed: Signed, kind: type[T]) -> T:
        """The statement, if it is valid and its signer was entitled.

        An owner or a site signs for itself only, and one control centre alone gives bare names.
        Raises `Refused` or `Corrupt`.
        """
        member = self.members().get(signed.public_key)
        if member is None or member.kind not in _SIGNERS[kind]:
            signers = " or ".join(_SIGNERS[kind])
            raise _refused(f"its signer is no {signers} in this network")
        if kind is NameGrant and member != (naming := self.naming()):
            assert naming is not None
            raise _refused(f"{naming.name} gives bare names, and {member.name} does not")
        # Facilities repeat the same grants in every advert.
        message = _DOMAINS[kind] + signed.statement
        check_signature_once(signed.public_key, signed.signature, message)
        statement = decode(signed.statement, kind)
        if statement.network != self.network:
            raise _refused("it is for another network")
        if isinstance(statement, SealingKey):
            if statement.site != member.name or Role.FACILITY not in member.roles:
                raise _refused(f"{member.name} cannot sign for a facility {statement.site}")
        elif isinstance(statement, CenterMandate):
            if statement.member != member.name:
                raise _refused(f"{member.name} cannot sign for {statement.member}")
        elif member.kind is Kind.OWNER and statement.owner != member.name:
            raise _refused(f"{member.name} cannot sign for {statement.owner}")
        if not self.wall_s() < statement.until_s:
            raise _refused("it has expired")
        ahead = isinstance(statement, DeploymentGrant) and (
            statement.issued_at_s - self.wall_s() > _AHEAD_S
        )
        if ahead:  # It would count until then, whatever its owner signs.
            raise _refused("it was signed in the future: set the clocks of both machines")
        return statement


def new_token(
    network: str,
    owner: str,
    gateways: tuple[SiteId, ...],
    until_s: float,
    rate: tuple[float, int],
    key: SigningKey,
    limits: UseLimits | None = None,
) -> str:
    """A token: a secret, and the owner's mandate for its holder. `rate`: queries per second and in
    a burst."""
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    mandate = Mandate(
        network=network,
        owner=OwnerId(owner),
        gateways=gateways,
        secret=_digest(secret),
        until_s=until_s,
        per_s=rate[0],
        burst=rate[1],
        limits=limits or UseLimits(),
    )
    return f"{TOKEN_PREFIX}{secret}.{signed_text(sign_statement(mandate, key))}"


def new_center_token(
    network: str,
    member: str,
    center: str,
    until_s: float,
    key: SigningKey,
    *,
    reads_only: bool = False,
    opens_until_s: float | None = None,
) -> str:
    """A token for a control centre's API: a secret, and the member's `CenterMandate`."""
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    mandate = CenterMandate(
        network=network,
        member=member,
        center=center,
        secret=_digest(secret),
        until_s=until_s,
        reads_only=reads_only,
        opens_until_s=opens_until_s,
    )
    return f"{CENTER_TOKEN_PREFIX}{secret}.{signed_text(sign_statement(mandate, key))}"


def split_token(token: str, prefix: str = TOKEN_PREFIX) -> tuple[str, str]:
    """A token's digest of the secret, and its mandate as text. Raises `Refused`."""
    secret, dot, text = token.removeprefix(prefix).partition(".")
    if not token.startswith(prefix) or not dot or len(token) > _MOST_TEXT:
        raise _refused("this is not the kind of token required here")
    return _digest(secret), text


def signed_text(signed: Signed) -> str:
    """A signed statement as text, for tokens, headers and JSON."""
    return base64.urlsafe_b64encode(canonical(signed)).decode().rstrip("=")


def read_signed(text: str) -> Signed:
    """The reverse of `signed_text`. Raises `Refused`."""
    try:
        if len(text) > _MOST_TEXT or text.endswith("="):
            raise ValueError
        # Strict: other spellings of the same must not fill caches.
        return decode(raw_of(text + "=" * (-len(text) % 4), b"-_"), Signed)
    except (ValueError, Corrupt):
        raise _refused("it cannot be read") from None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _refused(why: str) -> Refused:
    return Refused(why, field="grant", fix="have it signed with its owner's key")
