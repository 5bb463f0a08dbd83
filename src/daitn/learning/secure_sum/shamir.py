"""Secret sharing: Shamir 1979, "How to share a secret", CACM 22(11).

A share is a point of a polynomial over a prime field whose value at 0 is the secret: by fewer
points than it has coefficients, every secret is as likely as before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from daitn.objects.errors import Corrupt

__all__ = ["PRIME", "SECRET_BYTES", "SHARE_BYTES", "joined", "split"]

PRIME: Final = 2**256 + 297
"""The least prime greater than every secret."""
SECRET_BYTES: Final = 32
SHARE_BYTES: Final = 33
_DRAWN_BYTES = 64
"""Bytes drawn per coefficient: 256 bits more than it has, so that the remainder is unbiased."""


def split(
    secret: bytes, at: Sequence[int], least: int, random: Callable[[int], bytes]
) -> dict[int, bytes]:
    """Shares of a secret of `SECRET_BYTES`, one at each of the places `at`, which are not 0. Any
    `least` of them restore it."""
    assert len(secret) == SECRET_BYTES
    assert 0 not in at
    coefficients = [int.from_bytes(secret)]
    coefficients += [int.from_bytes(random(_DRAWN_BYTES)) % PRIME for _ in range(least - 1)]
    shares = {}
    for place in at:
        value = 0
        for coefficient in reversed(coefficients):
            value = (value * place + coefficient) % PRIME
        shares[place] = value.to_bytes(SHARE_BYTES)
    return shares


def joined(shares: Mapping[int, bytes]) -> bytes:
    """The secret of these shares, which must be enough, by Lagrange's formula at 0.

    Raises `Corrupt` if they are shares of none; of wrong ones it may give another.
    """
    total = 0
    for place, share in shares.items():
        above, below = 1, 1
        for other in shares:
            if other != place:
                above = above * other % PRIME
                below = below * (other - place) % PRIME
        total += int.from_bytes(share) * above * pow(below, -1, PRIME)
    total %= PRIME
    if total >= 2 ** (8 * SECRET_BYTES):
        raise Corrupt("shares do not fit together", fix="begin the sum again with other members")
    return total.to_bytes(SECRET_BYTES)
