"""What members sign so that others can check it without asking: who may answer under a name, and
who may ask in an owner's name.

A deployment's name belongs to its owner: two owners may use the same, and `owner/name` says which
is meant.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

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
    "full_name",
]


def full_name(owner: str, name: str) -> str:
    """`<owner>/<name>`: names a model where others may use its name too."""
    return f"{owner}/{name}"


class DeploymentGrant(msgspec.Struct, frozen=True, kw_only=True):
    """An owner's word that these weights answer under this name of its own, on these terms, and
    where."""

    network: Word
    owner: OwnerId
    name: Word
    manifest: Digest
    """Digest of the weights."""
    terms: Digest
    """Of the deployment's `DeploymentTerms`."""
    sites: Annotated[tuple[SiteId, ...], msgspec.Meta(max_length=256)] = ()
    """Facilities that may answer; empty: those for which a control centre signs a `PlaceGrant`."""
    issued_at_s: Moment
    """Of two grants for one name, the later one counts."""
    until_s: Moment
    """No facility answers by it afterwards."""


class PlaceGrant(msgspec.Struct, frozen=True, kw_only=True):
    """A control centre's word that a facility hosts these weights under this name, where their
    owner leaves the choice to it. It lasts briefly and is renewed while it holds."""

    network: Word
    owner: OwnerId
    name: Word
    manifest: Digest
    site: SiteId
    until_s: Moment


class NameGrant(msgspec.Struct, frozen=True, kw_only=True):
    """The word of the roster's first control centre that a bare name means this owner's model,
    whoever asks."""

    network: Word
    owner: OwnerId
    name: Word
    issued_at_s: Moment
    """When the owner first got it; of two owners that show one, the earlier counts."""
    until_s: Moment


class Mandate(msgspec.Struct, frozen=True, kw_only=True):
    """An owner's word that these gateways may ask in its name for whoever shows a secret."""

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


class CenterMandate(msgspec.Struct, frozen=True, kw_only=True):
    """A person's word that a control centre may act in its name for whoever shows a secret."""

    network: Word
    member: Word
    """Name of the owner or operator who signs."""
    center: Word
    """The control centre that may, as the roster calls it."""
    secret: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    """SHA-256 of the secret."""
    until_s: Moment
    reads_only: bool = False
    """Whether it may look at everything that the member may see, and change nothing."""
    opens_until_s: Moment | None = None
    """Set: the secret opens one session, until then, and is worth nothing else."""


class SealingKey(msgspec.Struct, frozen=True, kw_only=True):
    """A facility's word that queries sealed to this key can be read at the site alone."""

    network: Word
    site: SiteId
    public: Word
    """X25519, base64."""
    until_s: Moment


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """One of these as it is stored and sent."""

    statement: Annotated[bytes, msgspec.Meta(max_length=1 << 15)]
    """Its canonical MessagePack, as it was signed."""
    public_key: Word
    """The signer's, base64."""
    signature: Word
    """Base64."""
