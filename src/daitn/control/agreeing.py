"""Whether verifiers that measured the same model agree, and on what.

Each has a test set of its own, so honest ones differ by sampling error. Two agree if their values
differ by no more than honest ones do in all but one of a thousand pairs. A test set stays the same,
so these chances are per pair of verifiers and not per measurement. The value that counts is the
median of those who agree with the median of all: while a majority is honest, it lies between what
honest ones measured, or within sampling error of one of them.

What a verifier states about its measurement makes nobody agree: verifiers with fewer than
`LEAST_ITEMS` items are not compared, so fewer count as that many; and a pair has the error of its
smaller test set twice, so that a large number of items leaves its neighbours no less room.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import msgspec

from daitn.objects.lineage import Verification
from daitn.objects.quorum import LEAST_ITEMS, PLAIN_SHARES
from daitn.objects.sampling import COUNT_STEP, share_error

__all__ = ["Consensus", "agree", "agreed"]

_DEVIATIONS = 3.29
"""Standard deviations within which 999 of 1,000 differences of honest pairs lie."""


@dataclass(frozen=True)
class Consensus:
    """The result of several verifiers for one objective of one model."""

    fact: Verification
    """The measurement in the middle of those that agree, with the medians of what they found."""
    agreeing: tuple[Verification, ...]
    others: tuple[Verification, ...]


def agreed(measurements: Sequence[Verification]) -> Consensus:
    """The result on which most of these agree; there is at least one."""
    ordered = sorted(measurements, key=lambda fact: (fact.value, fact.site))
    found: list[Verification] = []
    for middle in {(len(ordered) - 1) // 2, len(ordered) // 2}:
        near = [fact for fact in ordered if agree(fact, ordered[middle])]
        found = max(found, near, key=len)
    others = tuple(fact for fact in ordered if fact not in found)
    fact = msgspec.structs.replace(
        found[(len(found) - 1) // 2],
        value=median(fact.value for fact in found),
        standard_error=median(fact.standard_error for fact in found),
        by_label=_middle([fact.by_label for fact in found]),
    )
    return Consensus(fact, tuple(found), others)


def _middle(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """The median of each label that most state."""
    labels = Counter(label for by_label in found for label in by_label)
    return {
        label: median(by_label[label] for by_label in found if label in by_label)
        for label, count in labels.items()
        if 2 * count > len(found)
    }


def agree(one: Verification, other: Verification) -> bool:
    """Whether sampling and rounding explain the difference of two values."""
    error = math.sqrt(2.0) * max(_error(one), _error(other))
    step = COUNT_STEP / min(_items(one), _items(other))  # Values are rounded down to such steps.
    return abs(one.value - other.value) <= _DEVIATIONS * error + step


def _error(fact: Verification) -> float:
    items = _items(fact)
    return share_error(min(1.0, max(0.0, fact.value)) * items, items)


def _items(fact: Verification) -> int:
    """Of a share with this measurement's sampling error."""
    return max(LEAST_ITEMS, fact.items) if fact.metric in PLAIN_SHARES else LEAST_ITEMS
