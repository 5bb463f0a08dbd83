"""The relay's part of a secure sum: it removes the masks from what its members agreed to."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from daitn.learning.secure_sum.fixed_point import Words
from daitn.learning.secure_sum.masks import (
    add_mask,
    commitment,
    derived,
    neighbours,
    pair_key,
    pair_mask,
)
from daitn.learning.secure_sum.member import least_shares
from daitn.learning.secure_sum.shamir import joined
from daitn.objects.errors import Corrupt, Refused
from daitn.objects.identifiers import SiteId
from daitn.objects.secure_sum import Agreement, MemberKeys, Revealed, SumTerms

__all__ = ["unmasked"]


def unmasked(
    terms: SumTerms,
    agreed: Agreement,
    masked: Mapping[SiteId, Words],
    keys: Mapping[SiteId, MemberKeys],
    revealed: Mapping[SiteId, Revealed],
) -> Words:
    """The sum of the unmasked numbers of the members in `agreed.summed`.

    Raises `Refused` if too few shares of a secret were revealed, and `Corrupt` if they give another
    secret than its member's: then there is no sum, and nothing else comes of what was revealed.
    """
    total = np.zeros(terms.numbers, np.uint64)
    for name in agreed.summed:
        np.add(total, masked[name], out=total)
    for name in agreed.summed:
        seed = _secret(terms, name, {by: each.seeds for by, each in revealed.items()})
        if commitment(seed) != keys[name].seed:
            raise _wrong(name)
        add_mask(total, derived(seed, terms, "own mask"), subtract=True)
    for name in sorted(set(agreed.shared) - set(agreed.summed)):
        private = _secret(terms, name, {by: each.keys for by, each in revealed.items()})
        public = X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
        if public != keys[name].masking:
            raise _wrong(name)
        # The mask terms of the lost member cancel what the others added.
        for other in sorted(neighbours(terms, name) & set(agreed.summed)):
            pair_mask(total, terms, name, other, pair_key(private, keys[other].masking))
    return total


def _secret(
    terms: SumTerms, name: SiteId, revealed: Mapping[SiteId, Mapping[SiteId, bytes]]
) -> bytes:
    least = least_shares(terms, name)
    found = {
        terms.members.index(by) + 1: shares[name]
        for by, shares in revealed.items()
        if name in shares
    }
    if len(found) < least:
        raise Refused(
            f"{len(found)} shares of a secret of {name} were revealed, of {least}",
            field="least",
            fix="begin a new sum, with the members that are left",
        )
    return joined(dict(sorted(found.items())[:least]))


def _wrong(name: SiteId) -> Corrupt:
    return Corrupt(
        f"the shares of a secret of {name} give another one",
        field=f"revealed[{name}]",
        fix="begin a new sum: it is unknown who shared out or revealed a wrong share",
    )
