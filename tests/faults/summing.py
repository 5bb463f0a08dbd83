"""Models that sites sum in secret: vectors with a place for each visit, so that the sum shows which
visits it has, each with its share; and all that leaves a site for a sum."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from daitn.objects.lineage import Entry, Merge, Visit
from daitn.objects.secure_sum import MaskedWanted, Revealed, RevealWanted, SumQuestion
from daitn.objects.wire import decode

__all__ = ["PHASES", "SUMMED", "Sums", "Vector", "as_summed", "is_summed"]

SUMMED = "summed.safetensors"
"""The part of a model that is a vector."""
PHASES = ("keys", "shares", "masked", "agreement", "reveal")
"""Of a sum: whoever is lost before any of them, the sum is of those that are left, or none."""
_VISITS = 128
"""Places of a vector."""
_MARK = 4
"""Numbers at its end that no other visit has."""
_PLAIN = 3
"""More words than this of 64 bits that are small, in one message, do not come by chance: of 132
random ones, one in 10^13 messages has four, as one word in 32,768 is."""

Vector = NDArray[np.float64]
Visited = tuple[str, int, int]
"""A visit: site, seed, examples."""


def is_summed(model: Path) -> bool:
    """Whether a model in a folder is a vector."""
    return (model / SUMMED).exists()


@dataclass
class Sums:
    """All sums of a run, which nobody but the run sees."""

    places: dict[Visited, int] = field(default_factory=dict)
    """Of visits in all vectors."""
    marks: set[bytes] = field(default_factory=set)
    """The end of each vector that a visit made: no message may hold it."""
    leaving: dict[str, str] = field(default_factory=dict)
    """Sites that die as a phase begins."""
    left: int = 0
    """How many have."""
    wrong: list[str] = field(default_factory=list)
    """What left a site and must not."""
    sums: set[str] = field(default_factory=set)
    """Those that were unmasked."""
    _masked: dict[str, dict[str, NDArray[np.uint64]]] = field(default_factory=dict)
    """By sum and site."""
    _revealed: dict[str, tuple[set[str], set[str]]] = field(default_factory=dict)
    """By sum: members of whose seeds, and of whose keys, shares were told."""

    # What the toy does

    def fresh(self, out: Path) -> None:
        save_file({"numbers": np.zeros(_VISITS + _MARK)}, out / SUMMED)

    def train(self, model: Path, visit: Visited, out: Path) -> None:
        numbers = load_file(model / SUMMED)["numbers"]
        numbers[self.places.setdefault(visit, len(self.places))] += 1.0
        drawn = hashlib.blake2b(repr(visit).encode(), digest_size=8 * _MARK).digest()
        numbers[_VISITS:] = np.frombuffer(drawn, "<u8") / 2.0**64
        self.marks.add(numbers[_VISITS:].tobytes())
        save_file({"numbers": numbers}, out / SUMMED)

    def merge(self, models: Iterable[Path], out: Path) -> None:
        (mean,) = models
        save_file(load_file(mean / SUMMED), out / SUMMED)

    def visited(self, numbers: Vector) -> Counter[Visited]:
        """The visits in a vector."""
        return Counter(visit for visit, place in self.places.items() if numbers[place] > 1e-6)

    # What leaves sites

    def watch(self, site: str, sums: Any, die: Callable[[], None]) -> None:
        """Look at what a site answers to those who sum, from now on."""
        answer = sums.answer

        def watched(question: SumQuestion) -> bytes:
            if self.leaving.get(site) == question.__struct_config__.tag:
                del self.leaving[site]
                self.left += 1
                die()
            given: bytes = answer(question)
            self._told(site, question, given)
            return given

        sums.answer = watched

    def _told(self, site: str, question: SumQuestion, given: bytes) -> None:
        name = str(question.sum)
        if isinstance(question, MaskedWanted):
            masked = self._masked.setdefault(name, {})
            if site in masked:
                self.wrong.append(f"{site} told its update twice, for {name}")
            masked[site] = np.frombuffer(given, "<u8")
            self.wrong += self._open(name, site)
        elif isinstance(question, RevealWanted):
            self.sums.add(name)
            told = decode(given, Revealed)
            seeds, keys = self._revealed.setdefault(name, (set(), set()))
            seeds.update(told.seeds)
            keys.update(told.keys)
            for member in sorted(seeds & keys):
                self.wrong.append(f"both masks of {member} were told, for {name}")

    def _open(self, name: str, site: str) -> Iterator[str]:
        """With all that was told before, what a site tells is random: no difference, and no sum, of
        some of it is an update."""
        masked = self._masked[name]
        others = [other for other in masked if other != site]
        for count in range(len(others) + 1):
            for some in itertools.combinations(others, count):
                for signs in itertools.product((1, -1), repeat=count):
                    total = masked[site].copy()
                    for sign, other in zip(signs, some, strict=True):
                        total = total + masked[other] if sign > 0 else total - masked[other]
                    top = total >> np.uint64(48)
                    if np.count_nonzero((top == 0) | (top == 0xFFFF)) > _PLAIN:
                        yield f"what {', '.join((site, *some))} told for {name} is not masked"
                        return


def as_summed(entries: Iterable[Entry], model: str, sums: Sums, numbers: Vector) -> Iterator[str]:
    """Compare a vector with its lineage: each visit has its share, and no other is there."""
    made: dict[str, Visit | Merge] = {}
    for entry in entries:
        if isinstance(entry.fact, Visit | Merge):
            made.setdefault(entry.fact.model_out, entry.fact)
    # A private visit takes another number of records, by chance.
    counted = not any(isinstance(fact, Visit) and fact.privacy for fact in made.values())
    told = sorted(
        (site, examples if counted else 0, share) for site, examples, share in _shares(made, model)
    )
    found = sorted(
        (site, examples if counted else 0, round(float(numbers[place]), 5))
        for (site, _, examples), place in sums.places.items()
        if abs(numbers[place]) > 1e-6
    )
    if told != found:
        yield f"it is a sum of {found}, its lineage says {told}"


def _shares(made: dict[str, Visit | Merge], model: str) -> Iterator[tuple[str, int, float]]:
    """Of each visit behind a model, by what its lineage says: site, examples, share."""
    while isinstance(merge := made.get(model), Merge):
        visits = [made[one] for one in merge.models]
        shares = [
            (visit, share)
            for visit, share in zip(visits, merge.shares, strict=True)
            if isinstance(visit, Visit) and visit.site in merge.summed
        ]
        total = sum(share for _, share in shares)
        for visit, share in shares:
            yield str(visit.site), visit.examples, round(share / total, 5)
        model = merge.base
