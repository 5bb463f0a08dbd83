"""Exact amounts: from stated prices to whole millionths of a US dollar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from daitn.objects.accounts import MICROS, MOST, Posting

__all__ = ["divided", "exact", "micros", "transfer", "whole"]


def exact(number: float) -> Fraction:
    """A stated number exactly as written: 0.1 is one tenth, not the nearest binary fraction.
    Anything that is not a number counts as 0."""
    return Fraction(repr(float(number))) if math.isfinite(number) else Fraction(0)


def whole(amount: Fraction | float, units: int = 1) -> int:
    """An amount in whole `1/units`, to the nearest, ties to even; at least 0 and at most `MOST`."""
    if isinstance(amount, float):
        amount = exact(amount)
    return min(MOST, max(0, round(amount * units)))


def micros(usd: Fraction | float) -> int:
    """An amount of US dollars in micro-USD."""
    return whole(usd, MICROS)


def divided(total: int, weights: Sequence[Fraction]) -> list[int]:
    """Divide `total` by non-negative weights into whole numbers that sum to it, each less than one
    away from its share (the method of largest remainders, Hamilton 1792). Equal remainders keep
    their order. If all weights are zero, so are the parts."""
    of = sum(weights)
    if not of:
        return [0] * len(weights)
    shares = [total * weight / of for weight in weights]
    parts = [int(share) for share in shares]
    by_remainder = sorted(range(len(parts)), key=lambda at: (parts[at] - shares[at], at))
    for at in by_remainder[: total - sum(parts)]:
        parts[at] += 1
    return parts


def transfer(payer: str, payee: str, micro_usd: int, *present: str) -> tuple[Posting, ...]:
    """A payment from `payer` to `payee`; `present` took part and pays nothing. An account in
    several roles appears once."""
    amounts = dict.fromkeys((payer, payee, *present), 0)
    amounts[payer] -= micro_usd
    amounts[payee] += micro_usd
    return tuple(Posting(account, amount) for account, amount in amounts.items())
