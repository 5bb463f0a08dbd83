"""What a model is believed to know after a sequence of visits.

Knowledge is divided into *fields* (the topics under which data sets are published) and labels
(those of the test sets). A model's state is its skill K[d, l] in [0, 1] in each field d and label
l. Visiting site s, whose data lie in field d, with n examples

- *learns*: the gap of K[d, l] to the level of the site closes exponentially, faster where label l
  is frequent at s. (A power law, gap / (1 + speed * gap), took 0.79 of the time in 30 power-law
  worlds and 1.4 to 1.9 times as long in each of three of recorded training.)
- *fades*: skill in labels that s lacks, and in other fields, decays (McCloskey and Cohen 1989), the
  slower the more examples of it were seen so far; what s has, it rehearses.
- *loses*: the first examples of a visit warm up, a fresh model learns slowly at first, repeated
  examples teach less from epoch to epoch (Muennighoff et al., "Scaling data-constrained language
  models", NeurIPS 2023), and averaging with the arriving model undoes part of the change.

The value on objective o is the floor plus the room up to the objective's ceiling times the share of
its test items that some field covers,

    v[o, l] = floor + (ceiling_o - floor) (1 - prod_d (1 - teaches[d, o] K[d, l])),

a noisy-or: fields that overlap add less, others add fully. Each of its constants is a parameter
with a prior (`priors`) and a posterior (`posterior`); a `Draws` holds many sets of parameters at
once, and all arithmetic runs over all sets together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from daitn.objects.descriptors import TestSetDescriptor
from daitn.objects.identifiers import ObjectiveName
from daitn.topology.fit import topic_fit
from daitn.topology.snapshot import DataOption, MsDrrt

__all__ = [
    "Draws",
    "Flags",
    "Floats",
    "Indices",
    "Setting",
    "Visits",
    "after_visit",
    "anchored",
    "setting",
    "start_skills",
    "values",
    "whole_values",
]

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]

_ANY_LABEL = ""
_MOST_RATE = 4.0
"""Upper limit on how much more frequent than average a label counts, at a site with little else."""
_SPARSE = 0.75
"""Exponent of a label's frequency in its learning rate: 0.88, 0.7 to 0.9 and 0.3 fit digits, breast
cancer and wine best (`benchmarks/recordings`)."""
_REHEARSED = 0.05
"""A site rehearses labels above this share instead of forgetting them: 0.02 to 0.1 fitted."""
_SETTLED, _UNSETTLED, _SETTLES = 300.0, 10.0, 0.8
"""Skill from `_SETTLED` examples fades at the usual rate, and more slowly the more examples were
seen: exponents of 0.7 to 1.0 fit all three data sets."""
_FASTEST = 8.0
_STAYS, _FORGOTTEN = 0.75, 0.15
"""Among no correction, a full one, a constant share of the error, and scaled gaps, this gave the
least error one visit ahead: 0.076 over four recorded families, 0.096 without, 0.090 with all of
it."""
_LEAST = 1e-9
_HALVINGS = 30


@dataclass(frozen=True)
class Setting:
    """Figures from descriptors. S options, D fields, O objectives, L labels of the test sets."""

    options: tuple[DataOption, ...]
    objectives: tuple[ObjectiveName, ...]
    topics: tuple[str, ...]
    """(O,): topics of their test sets."""
    fields: tuple[tuple[str, ...], ...]
    """(D,): the topics of each field."""
    labels: tuple[str, ...]
    field: Indices
    """(S,): the field of each option."""
    records: Floats
    """(S,): usable records."""
    least: Indices
    """(S,): minimum examples of a visit."""
    share: Floats
    """(S, L): share of a label at an option."""
    rate: Floats
    """(S, L): the same times L: 1 if all labels are equally frequent."""
    apart: Floats
    """(D, D): 1 less the similarity of two fields' topics."""
    fit: Floats
    """(D, O): similarity of a field's topics and an objective's test sets."""
    shares: Floats
    """(O, L): distribution of an objective's test items over the labels; rows sum to 1."""
    items: Floats
    """(O, L): number of test items."""
    chance: Floats
    """(O,): accuracy of guessing."""

    @cached_property
    def pace(self) -> Floats:
        """(S, L): learning rate of a label at an option, 1 if all are equally frequent."""
        paces: Floats = np.minimum(self.rate, _MOST_RATE) ** _SPARSE
        return paces

    @cached_property
    def seldom(self) -> Floats:
        """(S, L): near 1 if an option does not rehearse a label, near 0 if it does."""
        return np.exp(-self.share / _REHEARSED)

    def index(self) -> dict[str, int]:
        """Option id to its position."""
        return {option.id: position for position, option in enumerate(self.options)}


@dataclass(frozen=True)
class Visits:
    """M visits that N rows make: each its own (M = N), or each its `made` one."""

    site: Indices
    examples: Floats
    before: Floats
    """Examples of earlier visits to the same option."""
    total: Floats
    """Examples of all earlier visits."""
    exposure: Floats
    """(M, D, L), or (1, D, L) for all: examples of each label in each field until now."""
    fresh: Flags
    """The model was never trained before, so there is nothing to average with."""
    made: Indices | None = None
    """(N,): the visit of each row."""


@dataclass(frozen=True)
class Draws:
    """N sets of parameters, each array with N rows."""

    tau: Floats
    """Examples until a gap has shrunk to 37 %, at the initial speed."""
    warm: Floats
    """Examples of a visit at which warming up costs half of their effect."""
    ripe: Floats
    """Examples until a fresh model learns at full speed."""
    repeats: Floats
    """Epochs on the same records until another one teaches 37 % of the first."""
    fading: Floats
    """Rate of forgetting without visits, relative to the rate of learning."""
    labelled: Floats
    """How much a label needs examples of its own, in [0, 1]; 0: any example teaches all labels."""
    averaged: Floats
    """Share of a visit's change undone by averaging with the arriving model, in [0, 1)."""
    ceiling: Floats
    """(N, O)."""
    teaches: Floats
    """(N, D, O)."""
    level: Floats
    """(N, S): quality of an option's data, in [0, 1]; near 0 if it teaches nothing."""

    def take(self, rows: Indices) -> Draws:
        """Only these sets, in this order."""
        return Draws(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def __len__(self) -> int:
        return len(self.tau)


def setting(topology: MsDrrt, objectives: Sequence[ObjectiveName]) -> Setting:
    """Figures from the descriptors of all options; every objective needs a verifier."""
    options = topology.options
    tests = [[choice.test for choice in topology.verifiers[name]] for name in objectives]
    pooled = [_pooled(found) for found in tests]
    labels = tuple(sorted({label for histogram in pooled for label in histogram}))
    items = np.array([[histogram.get(label, 0.0) for label in labels] for histogram in pooled])
    topics = [tuple(sorted(set(option.dataset.topics))) for option in options]
    fields = tuple(sorted(set(topics)))
    share = _shares(options, labels)
    quality = np.array([option.dataset.quality for option in options])
    samples = np.array([float(option.dataset.samples) for option in options])
    return Setting(
        options=options,
        objectives=tuple(objectives),
        topics=tuple(",".join(sorted({test.topic for test in found})) for found in tests),
        fields=fields,
        labels=labels,
        field=np.array([fields.index(one) for one in topics], dtype=np.int64),
        records=np.maximum(1.0, samples * quality),
        least=np.array([max(1, option.dataset.least_examples) for option in options], np.int64),
        share=share,
        rate=share * len(labels),
        apart=np.array([[1.0 - _alike(a, b) for b in fields] for a in fields]),
        fit=np.array([[_fits(topics, found) for found in tests] for topics in fields]),
        shares=items / items.sum(axis=1, keepdims=True),
        items=items,
        chance=np.array([max((test.chance for test in found), default=0.0) for found in tests]),
    )


def start_skills(known: Setting, draws: Draws, measured: Floats | None) -> Floats:
    """Skills (N, D, L) of a model before its first visit here.

    Zero, or equal skill in every field that explains the measurements `measured`, (O,), NaN if
    absent.
    """
    shape = (len(draws), len(known.fields), len(known.labels))
    if measured is None:
        return np.zeros(shape)
    floor = _floors(known, draws)
    # A guesser may exceed chance by luck: only values clearly above chance count as knowledge.
    clear = np.where(measured > known.chance + 0.1, measured, known.chance)
    covered = np.clip((clear - floor) / (draws.ceiling - floor), 0.0, 0.98)
    covered = np.where(measured > known.chance + 0.1, covered, 0.0)
    low, high = np.zeros_like(covered), np.ones_like(covered)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        enough = 1.0 - (1.0 - draws.teaches * middle[:, None]).prod(axis=1) >= covered
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    most = np.where(covered > 0.0, high, 0.0).max(axis=1)
    return np.broadcast_to(most[:, None, None], shape).copy()


def after_visit(
    known: Setting, draws: Draws, skills: Floats, visits: Visits, under: Indices | None = None
) -> Floats:
    """Skills (N, D, L) after a visit of each row; `under`, (N,), is each row's draw if not its own.

    What does not depend on the draw is computed once per visit. Within, the rows are the last axis:
    they are many, so that arrays are gone through in long strides.
    """
    count = len(skills)
    made = np.arange(count) if visits.made is None else visits.made
    drawn = np.arange(count) if under is None else under
    seen = (visits.exposure + _UNSETTLED) / _SETTLED
    settled = np.minimum(seen**-_SETTLES, _FASTEST)
    at, field_at = np.arange(len(visits.site)), known.field[visits.site]
    settled = np.broadcast_to(settled, (len(at), *settled.shape[1:]))
    unrehearsed = settled[at, field_at] * known.seldom[visits.site]
    site, field = visits.site[made], field_at[made]
    worth = _worth(known, draws, visits, made, drawn)
    growth = _growth(known, draws, visits.site, made, drawn)
    growth *= worth
    fading = (draws.fading / draws.tau)[drawn] * visits.examples[made]
    share = np.where(visits.fresh[made], 1.0, 1.0 - draws.averaged[drawn])
    before = skills.transpose(1, 2, 0)
    here = (np.arange(len(known.fields))[:, None] == field)[:, None]
    own = np.where(here, before, 0.0).sum(axis=0)
    speed = growth + fading * unrehearsed.T.take(made, axis=1)
    level = draws.level[drawn, site] * growth / np.maximum(speed, _LEAST)
    learnt = level + (own - level) * np.exp(-speed)
    learnt = own + share * (learnt - own)
    if len(known.fields) == 1:
        alone: Floats = learnt[None].transpose(2, 0, 1)
        return alone
    apart = (settled * known.apart[field_at][:, :, None]).astype(np.float32)
    away = apart.transpose(1, 2, 0).take(made, axis=-1)
    away *= -fading.astype(np.float32)
    left = _exp(away)
    left -= 1.0
    left *= share.astype(np.float32)
    left += 1.0
    after: Floats = np.where(here, learnt, before * left)
    return after.transpose(2, 0, 1)


def _exp(exponent: NDArray[np.floating]) -> NDArray[np.float32]:
    """In single precision: several times as fast, and exact to seven digits."""
    return np.exp(exponent.astype(np.float32))


def _growth(known: Setting, draws: Draws, site: Indices, made: Indices, drawn: Indices) -> Floats:
    """(L, N): rate at which a label's gap closes, per example."""
    labelled = draws.labelled[drawn]
    growth: Floats = (known.pace[site].T - 1.0).take(made, axis=1)
    growth *= labelled
    growth += 1.0
    growth /= draws.tau[drawn]
    return growth


def _worth(known: Setting, draws: Draws, visits: Visits, made: Indices, drawn: Indices) -> Floats:
    """(N,): effective number of examples of a visit."""
    warm, ripe = draws.warm[drawn], draws.ripe[drawn]
    horizon = draws.repeats[drawn] * known.records[visits.site[made]]
    examples = np.maximum(visits.examples, _LEAST)[made]
    total, before = visits.total[made], visits.before[made]
    warmed = examples / (examples + warm)
    asleep = ripe * np.exp(-total / ripe) * -np.expm1(-examples / ripe)
    again = horizon * np.exp(-before / horizon) * -np.expm1(-examples / horizon)
    worth: Floats = warmed * (1.0 - asleep / examples) * again
    return worth


def whole_values(
    known: Setting, draws: Draws, skills: Floats, under: Indices | None = None
) -> Floats:
    """Value (N, O) on every objective: the mean over its test items."""
    drawn = np.arange(len(skills)) if under is None else under
    missed = _missed(draws.teaches, skills, drawn)
    floor, ceiling = _floors(known, draws)[drawn], draws.ceiling[drawn]
    found: Floats = ceiling - (ceiling - floor) * np.einsum("oln,ol->no", missed, known.shares)
    return found


def values(known: Setting, draws: Draws, skills: Floats) -> Floats:
    """Value (N, O, L) on every label of every objective."""
    missed = _missed(draws.teaches, skills, np.arange(len(skills))).transpose(2, 0, 1)
    floor = _floors(known, draws)[:, :, None]
    found: Floats = floor + (draws.ceiling[:, :, None] - floor) * (1.0 - missed)
    return found


def _missed(teaches: Floats, skills: Floats, drawn: Indices) -> Floats:
    """(O, L, N): the share of a label's items that no field covers."""
    covers = teaches.transpose(1, 2, 0).take(drawn, axis=-1)[:, :, None]
    known = skills.transpose(1, 2, 0)[:, None]
    missed: Floats = covers[0] * known[0]
    np.subtract(1.0, missed, out=missed)
    for field in range(1, len(covers)):
        each = covers[field] * known[field]
        np.subtract(1.0, each, out=each)
        missed *= each
    return missed


def anchored(whole: Floats, believed: Floats, off: Floats) -> Floats:
    """Values (N, O) as they are expected to be measured.

    `whole` is the model's prediction, `believed` its prediction for the checkpoint, and `off` the
    error of that. Most of the error persists while little changes, and fades as more does.
    """
    stays = _STAYS * np.exp(-np.abs(whole - believed) / _FORGOTTEN)
    return np.clip(whole + off * stays, 0.0, 1.0)


def _floors(known: Setting, draws: Draws) -> Floats:
    """(N, O): where a model distinguishes labels, it never guesses one it has forgotten."""
    return known.chance * (1.0 - draws.labelled[:, None])


def _pooled(tests: Sequence[TestSetDescriptor]) -> dict[str, float]:
    """Items per label over all verifiers of an objective."""
    counts: dict[str, float] = {}
    for test in tests:
        for label, count in (test.labels or {_ANY_LABEL: test.items}).items():
            counts[label] = counts.get(label, 0.0) + count
    return counts if sum(counts.values()) > 0 else {_ANY_LABEL: 1.0}


def _shares(options: Sequence[DataOption], labels: Sequence[str]) -> Floats:
    """Label shares; uniform if a data set, or the tests, have no labels."""
    shares = np.full((len(options), len(labels)), 1.0 / len(labels))
    for row, option in enumerate(options):
        histogram = option.dataset.labels
        total = sum(histogram.values())
        for column, label in enumerate(labels):
            if total > 0 and label != _ANY_LABEL:
                shares[row, column] = histogram.get(label, 0) / total
    return shares


def _alike(one: Sequence[str], other: Sequence[str]) -> float:
    return max((topic_fit(a, b) for a in one for b in other), default=0.0)


def _fits(topics: Sequence[str], tests: Sequence[TestSetDescriptor]) -> float:
    return max((topic_fit(a, test.topic) for a in topics for test in tests), default=0.0)
