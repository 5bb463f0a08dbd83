"""One member of a secure sum, from its keys to what it reveals."""

from __future__ import annotations

import enum
import secrets
from collections.abc import Callable, Collection, Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from daitn.learning.secure_sum.fixed_point import Words
from daitn.learning.secure_sum.masks import (
    add_mask,
    commitment,
    derived,
    neighbours,
    pair_key,
    pair_mask,
)
from daitn.learning.secure_sum.shamir import SHARE_BYTES, split
from daitn.objects.errors import Corrupt, Refused
from daitn.objects.identifiers import SiteId
from daitn.objects.secure_sum import Agreement, MemberKeys, Revealed, SumTerms
from daitn.objects.wire import canonical

__all__ = ["SumMember", "Verify", "least_shares", "signed_of_agreement", "signed_of_keys"]

Sign = Callable[[bytes], str]
Verify = Callable[[SiteId, bytes, str], bool]
"""Whether a member signed some bytes, by its key in the roster."""

_NONCE = bytes(12)
"""Each key seals one message."""


class _Phase(enum.IntEnum):
    """A member's phase; it advances through each once and never goes back."""

    NOTHING = 0
    KEYS = 1
    SHARES = 2
    MASKED = 3
    AGREED = 4
    REVEALED = 5


class SumMember:
    """Holds a member's secrets for one sum. A new instance is another member with other secrets.

    Every method raises `Refused` out of turn: what is revealed twice could be about two sums.
    """

    def __init__(
        self,
        terms: SumTerms,
        name: SiteId,
        sign: Sign,
        verify: Verify,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        assert name in terms.members
        self._terms, self._name = terms, name
        self._sign, self._verify, self._random = sign, verify, random
        self._sealing, self._masking, self._seed = random(32), random(32), random(32)
        self._phase = _Phase.NOTHING
        self._neighbours = neighbours(terms, name)
        self._keys: dict[SiteId, MemberKeys] = {}
        self._held: dict[SiteId, tuple[bytes, bytes]] = {}
        """For each member: a share of its seed, and one of its masking key."""
        self._agreed: Agreement | None = None

    def keys(self) -> MemberKeys:
        """Its public keys."""
        self._go(_Phase.KEYS)
        sealing, masking = map(_public, (self._sealing, self._masking))
        seed = commitment(self._seed)
        statement = signed_of_keys(self._terms, self._name, sealing, masking, seed)
        return MemberKeys(
            sealing=sealing, masking=masking, seed=seed, signature=self._sign(statement)
        )

    def shares(self, keys: Mapping[SiteId, MemberKeys]) -> dict[SiteId, bytes]:
        """Shares of this member's secrets, sealed for each neighbour with known keys. Raises
        `Refused` if too few members have keys, and `Corrupt` for keys not signed by their
        member."""
        self._go(_Phase.SHARES)
        self._check_enough(keys)
        for name, one in keys.items():
            statement = signed_of_keys(self._terms, name, one.sealing, one.masking, one.seed)
            if name not in self._terms.members or not self._verify(name, statement, one.signature):
                raise Corrupt(f"{name} did not sign its keys", field=f"keys[{name}]")
        self._keys = {name: keys[name] for name in self._neighbours if name in keys}
        holders = sorted((self._name, *self._keys))
        at = {name: self._terms.members.index(name) + 1 for name in holders}
        least = least_shares(self._terms, self._name)
        if len(holders) < least:
            raise Refused("too few neighbours have keys", field="members")
        places = list(at.values())
        seeds = split(self._seed, places, least, self._random)
        masking = split(self._masking, places, least, self._random)
        own = at.pop(self._name)
        self._held[self._name] = seeds[own], masking[own]
        return {
            name: self._box(self._name, name).encrypt(_NONCE, seeds[place] + masking[place], b"")
            for name, place in at.items()
        }

    def masked(self, words: Words, shares: Mapping[SiteId, bytes]) -> Words:
        """Its numbers, with masks. `shares`: what each neighbour sealed for it; those that sealed
        nothing are in no mask.

        Raises `Corrupt` for shares that do not open, and `Refused` for other numbers than agreed.
        """
        self._go(_Phase.MASKED)
        if words.shape != (self._terms.numbers,):
            raise Refused(f"the sum is of {self._terms.numbers} numbers", field="numbers")
        for name, sealed in shares.items():
            if name not in self._keys:
                raise Corrupt(f"{name} is not a neighbour with keys", field=f"shares[{name}]")
            try:
                opened = self._box(name, self._name).decrypt(_NONCE, sealed, b"")
            except InvalidTag:
                raise Corrupt(
                    f"what {name} shared out does not open", field=f"shares[{name}]"
                ) from None
            if len(opened) != 2 * SHARE_BYTES:
                raise Corrupt(f"{name} shared out no shares", field=f"shares[{name}]")
            self._held[name] = opened[:SHARE_BYTES], opened[SHARE_BYTES:]
        if len(self._held) < least_shares(self._terms, self._name):
            raise Refused("too few neighbours shared out secrets", field="members")
        hidden = words.copy()
        add_mask(hidden, derived(self._seed, self._terms, "own mask"))
        for name in shares:
            common = pair_key(self._masking, self._keys[name].masking)
            pair_mask(hidden, self._terms, self._name, name, common)
        return hidden

    def agreement(self, shared: Collection[SiteId], summed: Collection[SiteId]) -> Agreement:
        """Its statement that the sum is of `summed`, among those that shared secrets.

        Raises `Refused` for a sum of too few, one without it, or other masks than it has.
        """
        self._go(_Phase.AGREED)
        self._check_enough(summed)
        members, among = set(shared), set(summed)
        if self._name not in among or not among <= members <= set(self._terms.members):
            raise Refused("this is not a sum of its members", field="summed")
        if members & self._neighbours != self._held.keys() - {self._name}:
            raise Refused("the sum names other members than its masks are for", field="shared")
        own = Agreement(shared=tuple(sorted(members)), summed=tuple(sorted(among)), signature="")
        signature = self._sign(signed_of_agreement(self._terms, own))
        self._agreed = Agreement(shared=own.shared, summed=own.summed, signature=signature)
        return self._agreed

    def revealed(self, signatures: Mapping[SiteId, str]) -> Revealed:
        """Shares that remove the masks from the sum on which enough members agreed by signature.

        Raises `Refused` if they are too few.
        """
        self._go(_Phase.REVEALED)
        agreed = self._agreed
        assert agreed is not None
        statement = signed_of_agreement(self._terms, agreed)
        signed = {
            name
            for name, signature in signatures.items()
            if name in agreed.summed and self._verify(name, statement, signature)
        }
        self._check_enough(signed | {self._name})
        summed = set(agreed.summed)
        return Revealed(
            seeds={name: seed for name, (seed, _) in self._held.items() if name in summed},
            keys={name: key for name, (_, key) in self._held.items() if name not in summed},
        )

    def _go(self, phase: _Phase) -> None:
        """Advance to the next phase; a failed one cannot be left."""
        if self._phase != phase - 1:
            raise Refused(
                f"a member that came to {self._phase.name.lower()} does not go to "
                f"{phase.name.lower()}",
                field="phase",
                fix="begin a new sum",
            )
        self._phase = phase

    def _check_enough(self, members: Collection[SiteId]) -> None:
        if len(set(members)) < self._terms.least:
            raise Refused(
                f"{len(set(members))} members are too few for a sum that takes {self._terms.least}",
                field="least",
                fix="begin a new sum, with the members that are left",
            )

    def _box(self, sender: SiteId, receiver: SiteId) -> ChaCha20Poly1305:
        other = receiver if sender == self._name else sender
        common = pair_key(self._sealing, self._keys[other].sealing)
        return ChaCha20Poly1305(derived(common, self._terms, "shares", sender, receiver))


def least_shares(terms: SumTerms, member: SiteId) -> int:
    """Number of shares that restore a member's secrets: if all are neighbours, the sum's minimum of
    members, and otherwise more than half."""
    holders = len(neighbours(terms, member)) + 1
    return terms.least if holders == len(terms.members) else holders // 2 + 1


def signed_of_keys(
    terms: SumTerms, name: SiteId, sealing: bytes, masking: bytes, seed: bytes
) -> bytes:
    """What a member signs about its keys."""
    return canonical(("daitn secure sum keys 1", terms, name, sealing, masking, seed))


def signed_of_agreement(terms: SumTerms, agreed: Agreement) -> bytes:
    """What a member signs about a sum."""
    return canonical(("daitn secure sum agreement 1", terms, agreed.shared, agreed.summed))


def _public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
