"""Classifies the topic of a query, learned from the wording of the network's data sets.

Data owners publish a `TopicSketch`: the number of records in which each hashed feature occurs. A
gateway pools the sketches per topic into a naive Bayes classifier, so it can classify queries
without any text leaving the site that holds it.

A feature is a run of three to five bytes of the lower-case text, spaces included. Chosen on MedQuAD
by cross-validation over training diseases against words, word pairs, other lengths, other numbers
of buckets, and Bernoulli and complement naive Bayes; `benchmarks/topics.py` reports the result on
diseases that were never seen.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daitn.objects.descriptors import DatasetDescriptor, NodeDescriptor, TopicSketch
from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import SiteId

__all__ = ["BUCKETS", "LEAST_RECORDS", "TopicModel", "check_sketch", "features", "sketch"]

_BITS = 13
BUCKETS = 1 << _BITS
"""As good as two and four times as many; a full sketch takes 49 kB in an advert."""
_SHORTEST, _LONGEST = 3, 5
"""Length of a feature in bytes."""
_MOST_CHARACTERS = 2000
"""Only this much of a text is read: one page, which takes 0.2 ms."""
_SHORT_CHARACTERS = 300
"""A text up to this length counts as a question as a whole."""
_QUESTION = re.compile(r"[^.?!\n]*\?")
LEAST_RECORDS = 5
"""Minimum number of records for a feature to be published, and the step to which counts are
rounded: statistical offices suppress counts below five and round the others in the same way."""
_MOST_RECORDS = 20_000
"""Maximum number of records read of a data set, evenly spread; takes a second."""
_MOST_TOPICS = 128
"""Topics distinguished: 4 MiB of weights. Strangers choose topics, and each costs memory."""
_SMOOTHING = 0.5
"""Records added to each feature (Krichevsky and Trofimov 1981); the best of 0.2 to 2."""
_TEMPERATURE = 2.2
"""Features of a text overlap and are correlated, so plain naive Bayes is far too confident.
Dividing the sum of their weights by this and by the root of their number makes it as often right as
it is confident: the divisor with the least log loss, for questions and for names of diseases
alike."""

_FNV_OFFSET, _FNV_PRIME = np.uint32(2166136261), np.uint32(16777619)
_MIX = np.uint32(0x85EBCA77)
"""FNV-1a, with one more multiplication so that its upper bits depend on every byte of a feature. It
gives the same buckets on every machine."""
_PLAIN = bytes(b if chr(b).isalnum() or b >= 128 else 32 for b in range(256))
"""Turns everything in ASCII but letters and digits into spaces."""

Buckets = NDArray[np.intp]


def features(text: str) -> Buckets:
    """The hash buckets of a text's features, ascending."""
    start = text[:_MOST_CHARACTERS].casefold().encode("utf-8", "ignore")
    plain = b" " + b" ".join(start.translate(_PLAIN).split()) + b" "
    present = np.zeros(BUCKETS, np.bool_)
    codes = np.frombuffer(plain, np.uint8).astype(np.uint32)
    hashes = np.full(len(codes), _FNV_OFFSET)
    for length in range(1, _LONGEST + 1):
        # `hashes[i]` covers the `length` bytes from `i` on.
        size = len(codes) - length + 1
        if size <= 0:
            break
        hashes = (hashes[:size] ^ codes[length - 1 :]) * _FNV_PRIME
        if length >= _SHORTEST:
            mixed = (hashes ^ (hashes >> np.uint32(15))) * _MIX
            present[mixed >> np.uint32(32 - _BITS)] = True
    return np.flatnonzero(present)


def sketch(texts: Iterable[str], least_records: int = LEAST_RECORDS) -> TopicSketch:
    """Sketch of the wording of a data set's texts. Repeated texts count once.

    Features that occur in fewer than `least_records` texts are left out.
    """
    different = sorted(set(texts))
    looked_at = different[:: math.ceil(len(different) / _MOST_RECORDS) or 1]
    counts = np.zeros(BUCKETS, np.int64)
    for text in looked_at:
        counts[features(text)] += 1
    counts[counts < least_records] = 0
    counts -= counts % LEAST_RECORDS
    filled = np.flatnonzero(counts)
    return TopicSketch(
        texts=len(looked_at), buckets=tuple(filled.tolist()), counts=tuple(counts[filled].tolist())
    )


def check_sketch(received: TopicSketch) -> None:
    """Raise `InvalidInput` for a sketch that `sketch` cannot have made.

    This keeps anyone from outweighing a large data set.
    """
    buckets, counts = received.buckets, received.counts
    in_order = all(one < other for one, other in itertools.pairwise(buckets))
    within = not buckets or (buckets[0] >= 0 and buckets[-1] < BUCKETS)
    fits = all(LEAST_RECORDS <= count <= received.texts for count in counts)
    for field, good in (
        ("texts", 0 <= received.texts <= _MOST_RECORDS),
        ("buckets", in_order and within),
        ("counts", fits and len(counts) == len(buckets)),
    ):
        if not good:
            raise InvalidInput(
                f"no data set has a sketch with such {field}",
                field=f"sketch.{field}",
                fix="run the same version of daitn at every site",
            )


@dataclass(frozen=True, slots=True)
class _Taught:
    """The contribution of one data set."""

    topics: tuple[str, ...]
    buckets: Buckets
    counts: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Weights:
    """Weight per bucket and topic; 0 for features that occur nowhere."""

    topics: tuple[str, ...]
    matrix: NDArray[np.float32]


class TopicModel:
    """Multinomial naive Bayes over the sketches of all data sets of a network.

    All topics are equally likely a priori: demand for a topic need not match the amount of data on
    it. Follows the adverts as a listener of the membership. A site's contribution outlasts its
    absence.
    """

    def __init__(self) -> None:
        self._datasets: dict[SiteId, tuple[DatasetDescriptor, ...]] = {}
        self._taught: dict[SiteId, tuple[_Taught, ...]] = {}
        self._weights: _Weights | None = None
        """None if a contribution changed since."""

    def described(self, node: NodeDescriptor) -> None:
        """Learn from a node's data set descriptors, replacing its earlier ones.

        An impossible sketch contributes nothing.
        """
        if self._datasets.get(node.site, ()) == node.datasets:
            return
        self._datasets[node.site] = node.datasets
        self._taught[node.site] = tuple(
            taught for data in node.datasets if (taught := _taught(data)) is not None
        )
        self._weights = None

    def came(self, site: SiteId) -> None:
        """Nothing to learn: the descriptor arrived earlier."""

    def lost(self, site: SiteId) -> None:
        """Nothing to forget: facilities may still serve its models."""

    def removed(self, site: SiteId) -> None:
        """Forget what was learned from a site that is no longer a member."""
        self._datasets.pop(site, None)
        if self._taught.pop(site, None) is not None:
            self._weights = None

    def topics(self) -> tuple[str, ...]:
        """Topics that can be distinguished."""
        return self._current().topics

    def classify(self, text: str) -> tuple[str, float]:
        """The most likely topic of a text, and its probability.

        Empty and 0 if there are fewer than two topics, or the text has no known feature.
        """
        weights = self._current()
        if len(weights.topics) < 2:
            return "", 0.0
        # `take` and a product are ten times as fast as an index and `sum` on narrow rows.
        found = weights.matrix.take(features(_question(text)), axis=0)
        known = int(np.count_nonzero(found[:, 0]))
        if known == 0:
            return "", 0.0
        evidence = np.ones(len(found), np.float32) @ found / (_TEMPERATURE * math.sqrt(known))
        best = int(evidence.argmax())
        return weights.topics[best], float(1.0 / np.exp(evidence - evidence[best]).sum())

    def _current(self) -> _Weights:
        if self._weights is None:
            self._weights = _weights(t for taught in self._taught.values() for t in taught)
        return self._weights


def _question(text: str) -> str:
    """The questions of a long text, or else its beginning.

    Sketches describe how questions are worded: judged by answer options or a report, every text
    seems to be on the topic with the most data.
    """
    if len(text) <= _SHORT_CHARACTERS:
        return text
    ends = text[:_MOST_CHARACTERS], text[_MOST_CHARACTERS:][-_MOST_CHARACTERS:]
    questions = [question.strip() for end in ends for question in _QUESTION.findall(end)]
    return " ".join(questions) or text[:_SHORT_CHARACTERS]


def _taught(data: DatasetDescriptor) -> _Taught | None:
    if data.sketch is None:
        return None
    try:
        check_sketch(data.sketch)
    except InvalidInput:
        return None
    buckets = np.array(data.sketch.buckets, np.intp)
    return _Taught(data.topics, buckets, np.array(data.sketch.counts, np.int64))


def _weights(taught: Iterable[_Taught]) -> _Weights:
    """If there are more topics than can be distinguished, the earliest ones stay."""
    pooled: dict[str, NDArray[np.int64]] = {}
    for data in taught:
        for topic in data.topics if data.counts.size else ():
            if topic in pooled or len(pooled) < _MOST_TOPICS:
                counts = pooled.setdefault(topic, np.zeros(BUCKETS, np.int64))
                counts[data.buckets] += data.counts
    topics = tuple(sorted(pooled))
    matrix = np.zeros((BUCKETS, len(topics)), np.float32)
    if topics:
        counts = np.stack([pooled[topic] for topic in topics], axis=1)
        known = counts.any(axis=1)
        share = (counts + _SMOOTHING) / (counts.sum(axis=0) + _SMOOTHING * BUCKETS)
        matrix[known] = np.log(share[known])
    return _Weights(topics, matrix)
