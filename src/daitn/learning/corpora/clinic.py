"""A generated stand-in for MedQuAD: the same shape, nothing to download, and no medicine in it.

Every disease, gene and drug is invented, and every sentence is ours (`clinic_wording`). It keeps
what makes a route matter in the real corpus: nine institutes, of which five write about everything
and four about one field; one phrasing of questions, but a wording of answers for each kind of
institute; question types that only specialists answer; diseases shared between institutes.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

import msgspec

from daitn.learning.corpora.clinic_wording import QUESTIONS, SLOTS, WORDINGS
from daitn.learning.corpora.records import QaPair

__all__ = ["clinic"]

_STARTS = ("Vel", "Tar", "Mo", "Quin", "Bres", "Os", "Lur", "Fen", "Ha", "Dro", "Zim", "Pel")
_MIDDLES = ("no", "ri", "bal", "ste", "mi", "ga", "thu", "lo", "ven", "do")
_ENDS = ("ric syndrome", "den disease", "mal disorder", "tis fever", "lex palsy", "nia")
_SENTENCES = 2
"""Sentences per answer, drawn from those of its wording for a type of question."""


class _Institute(msgspec.Struct, frozen=True):
    """The texts of one institute."""

    wording: str
    labels: tuple[str, ...]
    first: int
    """Its first disease; institutes overlap."""
    diseases: int


_INSTITUTES = {
    "ghr": _Institute(
        "plain", ("information", "frequency", "genetic changes", "inheritance", "treatment"), 0, 240
    ),
    "gard": _Institute(
        "plain", ("information", "symptoms", "causes", "inheritance", "treatment"), 120, 160
    ),
    "mplus": _Institute("friendly", ("information",), 60, 80),
    "seniorhealth": _Institute(
        "friendly", ("information", "symptoms", "prevention", "treatment"), 200, 60
    ),
    "cdc": _Institute("friendly", ("information", "symptoms", "prevention", "causes"), 250, 40),
    "ninds": _Institute("neurology", ("information", "treatment", "outlook", "research"), 200, 240),
    "nhlbi": _Institute("organ", ("information", "symptoms", "treatment", "outlook"), 420, 40),
    "niddk": _Institute("organ", ("information", "causes", "treatment", "prevention"), 440, 40),
    "cancergov": _Institute("organ", ("information", "treatment", "outlook", "research"), 460, 40),
}


def clinic() -> dict[str, list[QaPair]]:
    """Generate the pairs of every site; the result is always the same."""
    names = list(_names())
    return {site: list(_pairs(site, institute, names)) for site, institute in _INSTITUTES.items()}


def _names() -> Iterator[str]:
    parts = list(itertools.product(_STARTS, _MIDDLES, _ENDS))
    random.Random("clinic names").shuffle(parts)  # noqa: S311  seeded, not secret
    return ("".join(name) for name in parts)


def _pairs(site: str, institute: _Institute, names: Sequence[str]) -> Iterator[QaPair]:
    wording = WORDINGS[institute.wording]
    for disease in names[institute.first : institute.first + institute.diseases]:
        for label in institute.labels:
            rng = random.Random(f"{site}:{disease}:{label}")  # noqa: S311  seeded, not secret
            sentences = rng.sample(wording[label], _SENTENCES)
            filled = {slot: rng.choice(words) for slot, words in SLOTS.items()}
            yield QaPair(
                topic=disease,
                label=label,
                question=QUESTIONS[label].format(disease=disease),
                answer=" ".join(sentences).format(disease=disease, **filled),
            )
