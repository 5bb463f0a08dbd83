"""What a query is about, learnt from how the network's data sets word their questions.

Data owners publish a `TopicSketch`: in how many records each hashed feature occurs. A gateway pools
the sketches topic by topic into a naive Bayes classifier, so that queries are understood without
any text leaving the site that holds it.

A feature is a run of three to five bytes of the text in lower case, spaces included. Chosen on
MedQuAD by cross-validation over training diseases against words, word pairs, other lengths, other
numbers of buckets, and Bernoulli and complement naive Bayes; `benchmarks/topics.py` reports the
result on diseases that were never seen.
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
"""As good as twice and four times as many; a full sketch takes 49 kB in an advert."""
_SHORTEST, _LONGEST = 3, 5
"""Bytes of a feature."""
_MOST_CHARACTERS = 2000
"""Of a text that are looked at: a page, which takes 0.2 ms."""
_SHORT_CHARACTERS = 300
"""A text of so many is a question as a whole."""
_QUESTION = re.compile(r"[^.?!\n]*\?")
LEAST_RECORDS = 5
"""Records in which a feature must occur to be told, and the step in which their number is told:
below five, counts are suppressed, and others rounded, as statistical offices do with small cells.
"""
_MOST_RECORDS = 20_000
"""Of a data set that are looked at, evenly spread; takes a second."""
_MOST_TOPICS = 128
"""That are told apart: 4 MiB of weights. Topics are strangers' words and cost memory."""
_SMOOTHING = 0.5
"""Records added to each feature (Krichevsky and Trofimov 1981); the best of 0.2 to 2."""
_TEMPERATURE = 2.2
"""Features of a text overlap and say much the same, so that naive Bayes is far too sure. The sum of
their weights divided by this and by the root of their number is as often right as it is sure: the
divisor that gives the least log loss, for questions and for names of diseases alike."""

_FNV_OFFSET, _FNV_PRIME = np.uint32(2166136261), np.uint32(16777619)
_MIX = np.uint32(0x85EBCA77)
"""FNV-1a, with one more multiplication so that its upper bits depend on every byte of a feature:
the same buckets on every machine."""
_PLAIN = bytes(b if chr(b).isalnum() or b >= 128 else 32 for b in range(256))
"""Everything in ASCII that is no letter or digit is a space."""

Buckets = NDArray[np.intp]


def features(text: str) -> Buckets:
    """The hash buckets that a text's features fall into, ascending."""
    start = text[:_MOST_CHARACTERS].casefold().encode("utf-8", "ignore")
    plain = b" " + b" ".join(start.translate(_PLAIN).split()) + b" "
    there = np.zeros(BUCKETS, np.bool_)
    codes = np.frombuffer(plain, np.uint8).astype(np.uint32)
    hashes = np.full(len(codes), _FNV_OFFSET)
    for length in range(1, _LONGEST + 1):
        # `hashes[i]` is that of the `length` bytes from `i` on.
        size = len(codes) - length + 1
        if size <= 0:
            break
        hashes = (hashes[:size] ^ codes[length - 1 :]) * _FNV_PRIME
        if length >= _SHORTEST:
            mixed = (hashes ^ (hashes >> np.uint32(15))) * _MIX
            there[mixed >> np.uint32(32 - _BITS)] = True
    return np.flatnonzero(there)


def sketch(texts: Iterable[str]) -> TopicSketch:
    """How a data set's texts are worded. Repetitions of a text count once."""
    different = sorted(set(texts))
    looked_at = different[:: math.ceil(len(different) / _MOST_RECORDS) or 1]
    counts = np.zeros(BUCKETS, np.int64)
    for text in looked_at:
        counts[features(text)] += 1
    counts -= counts % LEAST_RECORDS
    told = np.flatnonzero(counts)
    return TopicSketch(
        texts=len(looked_at), buckets=tuple(told.tolist()), counts=tuple(counts[told].tolist())
    )


def check_sketch(heard: TopicSketch) -> None:
    """Raise `InvalidInput` for what `sketch` cannot have made: nobody weighs more than a large data
    set does."""
    buckets, counts = heard.buckets, heard.counts
    in_order = all(one < other for one, other in itertools.pairwise(buckets))
    within = not buckets or (buckets[0] >= 0 and buckets[-1] < BUCKETS)
    fits = all(LEAST_RECORDS <= count <= heard.texts for count in counts)
    for field, good in (
        ("texts", 0 <= heard.texts <= _MOST_RECORDS),
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
    """What one data set taught."""

    topics: tuple[str, ...]
    buckets: Buckets
    counts: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Weights:
    """Per bucket and topic; 0 for features that occur nowhere, of which nothing is known."""

    topics: tuple[str, ...]
    matrix: NDArray[np.float32]


class TopicModel:
    """Multinomial naive Bayes over the sketches of all data sets of a network, all topics alike
    likely beforehand: what is asked need not be what there is much data on.

    Follows the adverts as a listener of the directory. What a site taught outlasts its absence.
    """

    def __init__(self) -> None:
        self._heard: dict[SiteId, tuple[DatasetDescriptor, ...]] = {}
        self._taught: dict[SiteId, tuple[_Taught, ...]] = {}
        self._weights: _Weights | None = None
        """None where something was taught since."""

    def described(self, node: NodeDescriptor) -> None:
        """Learn from what a node says of its data sets now, and forget what it said before. An
        impossible sketch teaches nothing."""
        if self._heard.get(node.site, ()) == node.datasets:
            return
        self._heard[node.site] = node.datasets
        self._taught[node.site] = tuple(
            taught for data in node.datasets if (taught := _taught(data)) is not None
        )
        self._weights = None

    def came(self, site: SiteId) -> None:
        """Nothing to learn: what the node says of itself was heard before."""

    def lost(self, site: SiteId) -> None:
        """Nothing to forget: its models may still be asked, at facilities."""

    def topics(self) -> tuple[str, ...]:
        """Topics that can be told apart."""
        return self._current().topics

    def classify(self, text: str) -> tuple[str, float]:
        """What a text is most likely about, and how likely that is.

        Empty and 0 where there are not two topics to tell apart, or the text has no known feature.
        """
        weights = self._current()
        if len(weights.topics) < 2:
            return "", 0.0
        # `take` and a product are ten times as fast as an index and `sum` on narrow rows.
        found = weights.matrix.take(features(_asked(text)), axis=0)
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


def _asked(text: str) -> str:
    """Of a long text its questions, or else its beginning. Sketches tell how questions are worded:
    by options to choose from, or a report, every text seems to be of the topic with most data."""
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
    """Of topics beyond the most that are told apart, those heard of first stay."""
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
