"""Messages of a secure sum: what its members tell one another through whoever relays it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from daitn.objects.identifiers import SiteId, VisitId, Word

__all__ = [
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

MOST_MEMBERS = 1024

Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Share = Annotated[bytes, msgspec.Meta(min_length=33, max_length=33)]
Members = Annotated[tuple[SiteId, ...], msgspec.Meta(max_length=MOST_MEMBERS)]
Shares = Annotated[dict[SiteId, Share], msgspec.Meta(max_length=MOST_MEMBERS)]


class SumTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all members know of a sum before it begins, and must know alike."""

    name: Word
    """Of no other sum."""
    members: Annotated[tuple[SiteId, ...], msgspec.Meta(min_length=2, max_length=MOST_MEMBERS)]
    """In order, each once."""
    least: Annotated[int, msgspec.Meta(ge=2, le=MOST_MEMBERS)]
    """Members without whom there is no sum: more than two thirds. Two sums then have the agreement
    of as many only if more than a third of all agree to both, whatever their relay says."""
    numbers: Annotated[int, msgspec.Meta(ge=1, le=1 << 34)]
    """Of each member."""

    def __post_init__(self) -> None:
        if list(self.members) != sorted(set(self.members)):
            raise ValueError("members: not in order, or one is there twice")
        if not 2 * len(self.members) // 3 < self.least <= len(self.members):
            raise ValueError("least: is not between two thirds of the members and all")


class MemberKeys(msgspec.Struct, frozen=True, kw_only=True):
    """A member's public keys for one sum."""

    sealing: Key
    """X25519: other members seal shares with it."""
    masking: Key
    """X25519: of each pair of members, the mask follows from theirs."""
    seed: Key
    """BLAKE2b of the seed of the mask that is the member's own."""
    signature: Word
    """By the key that the roster has of it."""


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """A member's word on which sum is to be unmasked. It gives one for a sum."""

    shared: Members
    """Who has shared out secrets, and so is in everybody's masks."""
    summed: Members
    """Whose masked numbers are in the sum."""
    signature: Word


class Revealed(msgspec.Struct, frozen=True, kw_only=True):
    """The shares that a member reveals, of one secret of each other member."""

    seeds: Shares
    """Of who is in the sum."""
    keys: Shares
    """Of who shared out secrets and is not in it."""


class TensorPlace(msgspec.Struct, frozen=True):
    """A tensor among a member's numbers."""

    file: Word
    name: Word
    kind: Literal["F16", "F32", "F64"]
    shape: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """What a member's numbers are, without any of them."""

    places: Annotated[tuple[TensorPlace, ...], msgspec.Meta(max_length=65_536)]
    """In order."""
    facts: dict[Word, dict[str, str]]
    """Of each file of tensors."""
    parts: dict[Word, bytes]
    """The model's other parts."""


class KeysWanted(msgspec.Struct, frozen=True, kw_only=True, tag="keys"):
    """Ask a member for its `MemberKeys`."""

    sum: VisitId
    numbers: int


class SharesWanted(msgspec.Struct, frozen=True, kw_only=True, tag="shares"):
    """Ask a member for its secrets in shares, sealed by member."""

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
    """Ask a member for what it `Revealed`."""

    sum: VisitId
    signatures: Annotated[dict[SiteId, Word], msgspec.Meta(max_length=MOST_MEMBERS)]


SumQuestion = KeysWanted | SharesWanted | MaskedWanted | AgreementWanted | RevealWanted
