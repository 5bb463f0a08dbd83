"""Messages of a secure sum, which its members exchange through the relay."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from daitn.objects.identifiers import SiteId, VisitId, Word

__all__ = [
    "LEAST_MEMBERS",
    "MOST_MEMBERS",
    "Agreement",
    "AgreementWanted",
    "Joined",
    "KeysWanted",
    "MaskedWanted",
    "MemberKeys",
    "RevealWanted",
    "Revealed",
    "SharesWanted",
    "SumQuestion",
    "SumTerms",
    "TensorPlace",
]

LEAST_MEMBERS = 2
"""A sum of one would reveal it."""
MOST_MEMBERS = 1024

Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Share = Annotated[bytes, msgspec.Meta(min_length=33, max_length=33)]
Members = Annotated[tuple[SiteId, ...], msgspec.Meta(max_length=MOST_MEMBERS)]
Shares = Annotated[dict[SiteId, Share], msgspec.Meta(max_length=MOST_MEMBERS)]


class SumTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The terms of a sum, which all members must know beforehand and agree on."""

    name: Word
    """Unique name of the sum."""
    members: Annotated[
        tuple[SiteId, ...], msgspec.Meta(min_length=LEAST_MEMBERS, max_length=MOST_MEMBERS)
    ]
    """In order, each once."""
    least: Annotated[int, msgspec.Meta(ge=2, le=MOST_MEMBERS)]
    """Minimum number of members: more than two thirds. Two sums can then both have that many
    agreements only if more than a third of all members agree to both, whatever their relay says."""
    numbers: Annotated[int, msgspec.Meta(ge=1, le=1 << 34)]
    """Numbers of each member."""

    def __post_init__(self) -> None:
        if list(self.members) != sorted(set(self.members)):
            raise ValueError("members: not in order, or one occurs twice")
        if not 2 * len(self.members) // 3 < self.least <= len(self.members):
            raise ValueError("least: is not between two thirds of the members and all")


class MemberKeys(msgspec.Struct, frozen=True, kw_only=True):
    """A member's public keys for one sum."""

    sealing: Key
    """X25519: other members seal shares with it."""
    masking: Key
    """X25519: each pair of members derives its mask from these."""
    seed: Key
    """BLAKE2b of the seed of the member's own mask."""
    signature: Word
    """By its key in the roster."""


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """A member's statement on which sum to unmask. It makes one per sum."""

    shared: Members
    """Members that have shared secrets, and so are in everybody's masks."""
    summed: Members
    """Members whose masked numbers are in the sum."""
    signature: Word


class Revealed(msgspec.Struct, frozen=True, kw_only=True):
    """The shares that a member reveals: for each other member, of one secret."""

    seeds: Shares
    """Shares of the seeds of members in the sum."""
    keys: Shares
    """Shares of the keys of members that shared secrets but are missing from it."""


class TensorPlace(msgspec.Struct, frozen=True):
    """A tensor among a member's numbers."""

    file: Word
    name: Word
    kind: Literal["F16", "F32", "F64"]
    shape: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """Describes a member's numbers, without any of them."""

    places: Annotated[tuple[TensorPlace, ...], msgspec.Meta(max_length=65_536)]
    """In order."""
    facts: dict[Word, dict[str, str]]
    """Facts about each file of tensors."""
    parts: dict[Word, bytes]
    """The model's other parts."""


class KeysWanted(msgspec.Struct, frozen=True, kw_only=True, tag="keys"):
    """Ask a member for its `MemberKeys`."""

    sum: VisitId
    numbers: int


class SharesWanted(msgspec.Struct, frozen=True, kw_only=True, tag="shares"):
    """Ask a member for shares of its secrets, sealed to each member."""

    sum: VisitId
    keys: Annotated[dict[SiteId, MemberKeys], msgspec.Meta(max_length=MOST_MEMBERS)]


class MaskedWanted(msgspec.Struct, frozen=True, kw_only=True, tag="masked"):
    """Ask a member for its masked numbers."""

    sum: VisitId
    shares: Annotated[dict[SiteId, bytes], msgspec.Meta(max_length=MOST_MEMBERS)]


class AgreementWanted(msgspec.Struct, frozen=True, kw_only=True, tag="agreement"):
    """Ask a member for its `Agreement`."""

    sum: VisitId
    shared: Members
    summed: Members


class RevealWanted(msgspec.Struct, frozen=True, kw_only=True, tag="reveal"):
    """Ask a member for its `Revealed`."""

    sum: VisitId
    signatures: Annotated[dict[SiteId, Word], msgspec.Meta(max_length=MOST_MEMBERS)]


SumQuestion = KeysWanted | SharesWanted | MaskedWanted | AgreementWanted | RevealWanted
