"""Which sites of a round form chains: FedSeq, Zaccone et al. 2022, "Speeding up heterogeneous
federated learning with sequentially trained superclients", arXiv:2201.10899.

In a chain, a model goes from site to site; the last models of all chains are averaged. The less a
chain's data differs from all data, the less its model drifts. So sites that differ come together,
by the labels that they publish: greedily, as in the article, whose grouping by divergence this is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median

__all__ = ["alike", "chains", "unlike"]

_ALIKE = 0.25
"""Maximum distance (total variation) of label shares from the median ones for data to be like
others'. Even splits of digits into ten sites are up to 0.15 off, and sites with half of the classes
0.5."""


def chains(labels: Sequence[Mapping[str, int]]) -> list[list[int]]:
    """The members of each chain, by their numbers, largest first.

    `labels`: the label histogram of each member. There are about as many chains as members of one,
    and two at least, where there are two members: a route would do for one chain.
    """
    sizes = [sum(histogram.values()) for histogram in labels]
    order = sorted(range(len(labels)), key=lambda member: (-sizes[member], member))
    count = min(len(labels), max(2, round(math.sqrt(len(labels)))))
    most = math.ceil(len(labels) / count)
    everything = _summed(labels)
    found: list[list[int]] = [[] for _ in range(count)]
    held: list[Counter[str]] = [Counter() for _ in range(count)]
    for member in order:

        def worse(chain: int, member: int = member) -> float:
            with_it = held[chain] + Counter(labels[member])
            return unlike(with_it, everything) - unlike(held[chain], everything)

        best = min((chain for chain in range(count) if len(found[chain]) < most), key=worse)
        found[best].append(member)
        held[best] += Counter(labels[member])
    return [chain for chain in found if chain]


def alike(labels: Sequence[Mapping[str, int]]) -> list[bool]:
    """Whether each member's label shares are known, and about the median ones."""
    sizes = [max(1, sum(histogram.values())) for histogram in labels]
    off = [0.0] * len(labels)
    for label in _summed(labels):
        shares = [one.get(label, 0) / n for one, n in zip(labels, sizes, strict=True)]
        usual = median(shares)
        off = [so_far + abs(share - usual) / 2 for so_far, share in zip(off, shares, strict=True)]
    return [bool(one) and distance <= _ALIKE for one, distance in zip(labels, off, strict=True)]


def unlike(some: Mapping[str, int], everything: Mapping[str, int]) -> float:
    """Distance of the label shares from the overall ones, in [0, 1] (total variation); 1 if there
    are no records."""
    ours, whole = sum(some.values()), sum(everything.values())
    if not ours:
        return 1.0
    return sum(abs(some.get(x, 0) / ours - n / whole) for x, n in everything.items()) / 2


def _summed(labels: Sequence[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for histogram in labels:
        total.update(histogram)
    return total
