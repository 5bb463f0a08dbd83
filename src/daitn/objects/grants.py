"""Signed statements that others can check offline: which weights may answer under a name, and who
may act in an owner's name.

A deployment's name belongs to its owner: two owners may use the same, and `owner/name` says which
is meant.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from daitn.objects.bounds import Price
from daitn.objects.identifiers import Digest, OwnerId, SiteId, Word
from daitn.objects.moments import Moment

__all__ = [
    "CenterMandate",
    "DeploymentGrant",
    "Mandate",
    "NameGrant",
    "PlaceGrant",
    "SealingKey",
    "Signed",
    "UseLimits",
    "full_name",
]


def full_name(owner: str, name: str) -> str:
    """`<owner>/<name>`: identifies a model where others may use its name too."""
    return f"{owner}/{name}"


class DeploymentGrant(msgspec.Struct, frozen=True, kw_only=True):
    """An owner's statement that these weights answer under this name, on these terms, and where."""

    network: Word
    owner: OwnerId
    name: Word
    manifest: Digest
    """Digest of the weights."""
    terms: Digest
    """Digest of the deployment's `DeploymentTerms`."""
    sites: Annotated[tuple[SiteId, ...], msgspec.Meta(max_length=256)] = ()
    """Facilities that may answer; empty means those for which a control centre signs a
    `PlaceGrant`."""
    issued_at_s: Moment
    """When it was signed: of two grants for one name, the later one counts."""
    until_s: Moment
    """No facility may use it afterwards."""


class PlaceGrant(msgspec.Struct, frozen=True, kw_only=True):
    """A control centre's statement that a facility hosts these weights under this name, if their
    owner leaves the choice to it. It is short-lived and is renewed as long as it holds."""

    network: Word
    owner: OwnerId
    name: Word
    manifest: Digest
    site: SiteId
    until_s: Moment


class NameGrant(msgspec.Struct, frozen=True, kw_only=True):
    """A statement of the roster's first control centre that a bare name means this owner's model
    for everybody."""

    network: Word
    owner: OwnerId
    name: Word
    issued_at_s: Moment
    """When the owner first got it; of two owners that show one, the earlier counts."""
    until_s: Moment


class UseLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the holder of a key or a token may use; an absent field means no limit. Amounts in US
    dollars apply to all gateways of a token together, everything else to each gateway.

    A gateway takes no token with a limit that it does not know.
    """

    usd_per_day: Price | None = None
    """At the prices of deployments; days and months are in UTC. Absent means no limit, here and
    below."""
    usd_per_month: Price | None = None
    """The same per month."""
    usd_total: Price | None = None
    """The same in total."""
    tokens_per_minute: Annotated[int, msgspec.Meta(ge=1, le=10**12)] | None = None
    """Read and written together; a minute's worth may be used at once."""
    models: Annotated[tuple[Word, ...], msgspec.Meta(max_length=64)] = ()
    """Models that it may name: `name`, `owner/name` or `auto`; empty means all."""

    @property
    def spends(self) -> bool:
        """Whether it limits money."""
        stated = (self.usd_per_day, self.usd_per_month, self.usd_total)
        return any(limit is not None for limit in stated)


class Mandate(msgspec.Struct, frozen=True, kw_only=True):
    """An owner's statement that these gateways may query in its name for the holder of a secret."""

    network: Word
    owner: OwnerId
    gateways: Annotated[tuple[SiteId, ...], msgspec.Meta(min_length=1, max_length=16)]
    secret: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    """SHA-256 of the secret."""
    until_s: Moment
    per_s: Annotated[float, msgspec.Meta(gt=0.0)] = 100.0
    """Queries per second at each gateway, on average."""
    burst: Annotated[int, msgspec.Meta(ge=1)] = 200
    """Queries in a burst."""
    limits: UseLimits = UseLimits()
    """Unknown to gateways of earlier versions."""


class CenterMandate(msgspec.Struct, frozen=True, kw_only=True):
    """A person's statement that a control centre may act in its name for the holder of a secret."""

    network: Word
    member: Word
    """Name of the owner or operator who signs."""
    center: Word
    """The authorised control centre, by its name in the roster."""
    secret: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    """SHA-256 of the secret."""
    until_s: Moment
    reads_only: bool = False
    """Whether it may only read what the member may see, and change nothing."""
    opens_until_s: Moment | None = None
    """If set, the secret only opens one session, until this time."""


class SealingKey(msgspec.Struct, frozen=True, kw_only=True):
    """A facility's statement that queries sealed to this key can be read at the site only."""

    network: Word
    site: SiteId
    public: Word
    """X25519, base64."""
    until_s: Moment


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """One of these as stored and sent."""

    statement: Annotated[bytes, msgspec.Meta(max_length=1 << 15)]
    """The signed canonical MessagePack."""
    public_key: Word
    """The signer's public key, base64."""
    signature: Word
    """Base64."""
