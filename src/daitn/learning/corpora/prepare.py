"""Prepares a corpus: the one entry point of this package for the rest of DA-ITN."""

from __future__ import annotations

from pathlib import Path

from daitn.learning.corpora.clinic import clinic
from daitn.learning.corpora.medquad import EXPERT, GENERAL, read_medquad
from daitn.learning.corpora.split import MOST_ITEMS, Prepared, write_corpus

__all__ = ["prepare"]


def prepare(out: Path, parquet: Path | None, most_items: int = MOST_ITEMS) -> Prepared:
    """Write a corpus' site and test files under `out`, with at most this many items in each
    test. With `parquet` the corpus is MedQuAD, without it the generated one. Raises `NotFound`
    or `InvalidInput` if `parquet` is missing or not MedQuAD."""
    if parquet is None:
        return write_corpus(out, "clinic", clinic(), GENERAL, EXPERT, most_items)
    return write_corpus(out, "medquad", read_medquad(parquet), GENERAL, EXPERT, most_items)
