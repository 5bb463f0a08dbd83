"""Deals a site's records into groups about one topic, so that their answers can be ranked."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from daitn.learning.causal_lm.settings import LARGEST_GROUP
from daitn.learning.corpora.records import QaPair

__all__ = ["Dealer"]


class Dealer:
    """Deals groups of records about one topic with different labels, epoch after epoch.

    A topic with one label has nothing to rank; such records are dealt only if a site has no others.
    Every record of a topic is dealt about once per epoch.
    """

    def __init__(self, pairs: Sequence[QaPair], rng: random.Random, least_records: int) -> None:
        """With fewer than `least_records`, records are not dealt repeatedly while there are
        others."""
        self._rng = rng
        topics: dict[str, dict[str, list[QaPair]]] = defaultdict(lambda: defaultdict(list))
        for pair in pairs:
            topics[pair.topic.casefold()][pair.label].append(pair)
        ranked = [labels for labels in topics.values() if len(labels) > 1]
        different = {pair for labels in ranked for own in labels.values() for pair in own}
        if len(different) < least_records:
            ranked = []
        self._topics = ranked or list(topics.values())
        self._least = 2 if ranked else 1
        self._waiting: list[list[QaPair]] = []

    @property
    def least_per_epoch(self) -> int:
        """Minimum number of records dealt per epoch."""
        return sum(_dealt([len(own) for own in t.values()], self._least) for t in self._topics)

    def deal(self, records: int, most: int) -> list[list[QaPair]]:
        """Groups with at least `records` records in total, the last one cut at `most`."""
        dealt: list[list[QaPair]] = []
        count = 0
        while count < min(records, most):
            if not self._waiting:
                self._waiting = self._epoch()
            dealt.append(self._waiting.pop()[: most - count])
            count += len(dealt[-1])
        return dealt

    def _epoch(self) -> list[list[QaPair]]:
        groups: list[list[QaPair]] = []
        for labels in self._topics:
            left = {label: self._rng.sample(own, len(own)) for label, own in labels.items()}
            while len(left) >= self._least:
                chosen = self._rng.sample(list(left), min(len(left), LARGEST_GROUP))
                groups.append([left[label].pop() for label in chosen])
                left = {label: own for label, own in left.items() if own}
        self._rng.shuffle(groups)
        return groups


def _dealt(of_labels: list[int], least: int) -> int:
    """Minimum number of a topic's records dealt per epoch: dealing ends when one label is left."""
    if least == 1:
        return sum(of_labels)
    most, second, *_ = sorted(of_labels, reverse=True)
    if len(of_labels) > LARGEST_GROUP:
        return sum(of_labels) - most
    return sum(of_labels) - most + second
