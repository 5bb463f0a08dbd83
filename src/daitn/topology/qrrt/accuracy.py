"""A deployment's accuracy, estimated from claims, signed evidence and findings.

Sources in descending order of trust: measurements that verification units made by querying the
deployment, their measurements of weights with the digest it says it serves, and its provider's
claims. Measurements are pooled by their number of items, as estimates of one share are, but no
verifier decides alone where there are several: those that contradict the middle one are left out,
and none counts for more items than that. What the verifiers of one owner measured is pooled first,
and so are then the owners: each has one voice. If the queries contradict the evidence, only the
queries count: the deployment may serve other weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from daitn.objects.descriptors import covers_topic
from daitn.objects.findings import Finding
from daitn.objects.identifiers import SiteId
from daitn.objects.lineage import Verification
from daitn.objects.queries import Trust
from daitn.objects.quorum import voice_of
from daitn.objects.sampling import share_error
from daitn.topology.arrays import Floats
from daitn.topology.qrrt.snapshot import Accuracy, Qrrt

__all__ = [
    "METRIC",
    "TRUSTED",
    "UNMEASURED_ACCURACY",
    "AccuracyEstimate",
    "accuracy_on",
    "estimate",
    "expected_on",
    "narrowest",
]

METRIC = "accuracy"
TRUSTED = {Trust.CLAIMED: 1, Trust.WEIGHTS: 2, Trust.ASKED: 3}
"""Levels of trust as numbers, for columns."""
UNMEASURED_ACCURACY = 0.25
"""Assumed accuracy of an unmeasured deployment in comparisons: that of guessing among four options,
the usual number in tests. So being measured pays off, unless the result is below chance. It
satisfies no `min_accuracy`."""
_CONTRADICTS = 3.0
"""Measurements that differ by more standard errors of the difference than this contradict each
other; by chance that happens once in 370."""
_USUAL_ITEMS = 240
"""Items of a verifier with the usual window. Fewer than these are no reason to count another one
for less: of two, one could else outweigh the other by measuring nearly nothing."""


@dataclass(frozen=True, slots=True)
class AccuracyEstimate:
    """Accuracy of one deployment on one topic."""

    value: float
    standard_error: float
    trust: int
    at_s: float
    contradicted: tuple[SiteId, ...] = ()
    """Verifiers left out, because most others contradict them."""


class _Measured(NamedTuple):
    """What one verifier measured."""

    value: float
    items: int
    at_s: float
    verifier: SiteId

    @property
    def standard_error(self) -> float:
        """By the number of items, never as stated."""
        return share_error(self.value * self.items, self.items)


class _Pooled(NamedTuple):
    """What verifiers measured together, over so many items."""

    known: AccuracyEstimate
    items: int


def estimate(
    claimed: float | None,
    evidence: Iterable[Verification],
    findings: Iterable[Finding],
    owners: Mapping[SiteId, str],
) -> AccuracyEstimate | None:
    """Combine everything known about one deployment's accuracy on one topic. `owners`: those of
    verifiers; one without is its own."""
    asked = [_Measured(f.value, f.items, f.at_s, f.verifier) for f in findings]
    weighed = [_Measured(v.value, v.items, v.at_s, v.site) for v in evidence]
    live = _of_owners(asked, owners, TRUSTED[Trust.ASKED])
    weights = _of_owners(_latest(weighed), owners, TRUSTED[Trust.WEIGHTS])
    if live is not None and weights is not None:
        return live.known if _contradict(live.known, weights.known) else _merged(live, weights)
    measured = live or weights
    if measured is not None:
        return measured.known
    if claimed is None or not 0.0 <= claimed <= 1.0:
        return None
    return AccuracyEstimate(claimed, 0.0, TRUSTED[Trust.CLAIMED], 0.0)


def accuracy_on(snapshot: Qrrt, topic: str, least: Trust) -> Accuracy:
    """Accuracy per row on the narrowest covering topic with trust of at least `least`.

    For an empty topic, the mean over all topics on which the row has that much trust.
    """
    key = narrowest(snapshot.accuracies.topics, topic), TRUSTED[least]
    cache = snapshot.accuracies.cache
    known = cache.get(key)
    if known is None:
        known = cache[key] = _worked_out(snapshot, *key)
    return known


def expected_on(snapshot: Qrrt, topic: str, least: Trust) -> Floats:
    """Value of `accuracy_on`; `UNMEASURED_ACCURACY` if unknown."""
    key = narrowest(snapshot.accuracies.topics, topic), TRUSTED[least]
    cache = snapshot.accuracies.expected
    expected = cache.get(key)
    if expected is None:
        value = accuracy_on(snapshot, topic, least).value
        expected = cache[key] = np.nan_to_num(value, nan=UNMEASURED_ACCURACY)
    return expected


def narrowest(topics: Mapping[str, Accuracy], topic: str) -> str | None:
    """The narrowest known topic that covers `topic`.

    Strangers choose the topic, so it must never become a cache key itself.
    """
    if not topic:
        return ""
    while topic and topic not in topics:
        topic = topic.rpartition("/")[0]
    return topic or None


def _worked_out(snapshot: Qrrt, topic: str | None, least: int) -> Accuracy:
    topics, rows = snapshot.accuracies.topics, len(snapshot.rows)
    if topic == "":
        return _mean(topics, rows, least)
    result = _unknown(rows)
    covering = [] if topic is None else [name for name in topics if covers_topic(name, topic)]
    for name in sorted(covering):  # Sorted by name, a topic comes after those that contain it.
        here = topics[name]
        trusted = here.trust >= least
        result = Accuracy(
            np.where(trusted, here.value, result.value),
            np.where(trusted, here.standard_error, result.standard_error),
            np.where(trusted, here.trust, result.trust),
            np.where(trusted, here.at_s, result.at_s),
        )
    return result


def _mean(topics: Mapping[str, Accuracy], rows: int, least: int) -> Accuracy:
    if not topics:
        return _unknown(rows)
    trusted = np.array([here.trust >= least for here in topics.values()])
    values = np.array([here.value for here in topics.values()])
    errors = np.array([here.standard_error for here in topics.values()])
    trusts = np.array([here.trust for here in topics.values()])
    ages = np.array([here.at_s for here in topics.values()])
    count = trusted.sum(axis=0)
    divisor = np.maximum(count, 1)
    value = np.where(trusted, values, 0.0).sum(axis=0) / divisor
    return Accuracy(
        np.where(count > 0, value, np.nan),
        np.sqrt((np.where(trusted, errors, 0.0) ** 2).sum(axis=0)) / divisor,
        np.where(count > 0, np.where(trusted, trusts, 127).min(axis=0), 0).astype(np.int8),
        np.where(trusted, ages, 0.0).max(axis=0),
    )


def _unknown(rows: int) -> Accuracy:
    zeros = np.zeros(rows)
    return Accuracy(np.full(rows, np.nan), zeros, np.zeros(rows, np.int8), zeros)


def _latest(measured: Iterable[_Measured]) -> list[_Measured]:
    """The latest of each verifier: who signs often has no more voices."""
    latest: dict[SiteId, _Measured] = {}
    for one in sorted(measured, key=lambda one: (one.at_s, -one.value, one.items)):
        latest[one.verifier] = one
    return list(latest.values())


def _of_owners(
    measured: Sequence[_Measured], owners: Mapping[SiteId, str], trust: int
) -> _Pooled | None:
    """What all measured, each owner with one voice."""
    if not measured:
        return None
    those_of: dict[str, list[_Measured]] = {}
    for one in measured:
        those_of.setdefault(voice_of(one.verifier, owners), []).append(one)
    left_out = set[SiteId]()
    voices, behind = list[_Measured](), dict[SiteId, set[SiteId]]()
    for those in those_of.values():
        own, items = _pooled(those, trust)
        first = min(one.verifier for one in those)
        voices.append(_Measured(own.value, items, own.at_s, first))
        behind[first] = {one.verifier for one in those}
        left_out.update(own.contradicted)
    known, items = _pooled(voices, trust)
    left_out.update(*(behind[one] for one in known.contradicted))
    return _Pooled(replace(known, contradicted=tuple(sorted(left_out))), items)


def _pooled(measured: Sequence[_Measured], trust: int) -> _Pooled:
    """The mean of those who agree with the middle one, by their items."""
    kept = _agreeing(measured)
    counts = sorted(one.items for one in kept)
    most = max(_USUAL_ITEMS, counts[(len(counts) - 1) // 2])
    items = sum(min(most, one.items) for one in kept)
    value = sum(min(most, one.items) * one.value for one in kept) / items
    newest_s = max(one.at_s for one in kept)
    left_out = tuple(sorted({one.verifier for one in measured} - {one.verifier for one in kept}))
    error = share_error(value * items, items)
    return _Pooled(AccuracyEstimate(value, error, trust, newest_s, left_out), items)


def _agreeing(measured: Sequence[_Measured]) -> list[_Measured]:
    """Those that do not contradict the middle one; of two in the middle, the one with more that
    agree, or both."""
    ordered = sorted(measured)
    middles = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    near = [{one for one in ordered if not _contradict(one, middle)} for middle in middles]
    most = max(map(len, near))
    kept = set().union(*(group for group in near if len(group) == most))
    return [one for one in ordered if one in kept]


def _merged(live: _Pooled, weights: _Pooled) -> AccuracyEstimate:
    """At least half of it is by asking: the deployment may serve other weights."""
    count = min(live.items, weights.items)
    items = live.items + count
    value = (live.known.value * live.items + weights.known.value * count) / items
    left_out = tuple(sorted({*live.known.contradicted, *weights.known.contradicted}))
    return AccuracyEstimate(
        value, share_error(value * items, items), live.known.trust, live.known.at_s, left_out
    )


def _contradict(one: _Measured | AccuracyEstimate, other: _Measured | AccuracyEstimate) -> bool:
    error = math.hypot(one.standard_error, other.standard_error)
    return abs(one.value - other.value) > _CONTRADICTS * error
