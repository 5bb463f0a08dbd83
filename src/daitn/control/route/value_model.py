"""The knowledge that a model is believed to have after a sequence of visits.

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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daitn.objects.descriptors import TestSetDescriptor
from daitn.objects.identifiers import ObjectiveName
from daitn.topology.arrays import Flags, Floats, Indices
from daitn.topology.fit import topic_fit
from daitn.topology.snapshot import DataOption, MsDrrt

__all__ = [
    "Draws",
    "Effects",
    "Setting",
    "Visits",
    "after_visit",
    "anchored",
    "effects",
    "setting",
    "start_skills",
    "values",
    "visits_to",
    "whole_values",
    "widened",
]


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
"""Among no correction, a full one, a constant share of the error, and scaled gaps, this had the
least error one visit ahead: 0.076 over four recorded families, 0.096 without, 0.090 with the full
one."""
_LEAST = 1e-9
_ENDLESS = 80.0
"""What is left after so many times the scale of a decay is nothing beside 1. Numbers that are too
small to be normal ones would take ten times as long."""
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
    """(S, L): likewise, times L: 1 if all labels are equally frequent."""
    apart: Floats
    """(D, D): 1 minus the similarity of two fields' topics."""
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
        """(L, S): learning rate of a label at an option, 1 if all are equally frequent."""
        paces: Floats = np.minimum(self.rate.T, _MOST_RATE) ** _SPARSE
        return paces

    @cached_property
    def seldom(self) -> Floats:
        """(L, S): near 1 if an option does not rehearse a label, near 0 if it does."""
        return np.exp(-self.share.T / _REHEARSED)

    @cached_property
    def own(self) -> Floats:
        """(D, 1, S): 1 for the field of an option, 0 for the others."""
        return np.eye(len(self.fields))[:, None, self.field]

    @cached_property
    def others(self) -> Floats:
        """(D, 1, S): how far each field is from that of an option."""
        others: Floats = self.apart.T[:, None, self.field]
        return others

    @cached_property
    def shown(self) -> Floats:
        """(D, L, S): examples of each label in each field among one of an option."""
        return self.own * self.share.T

    def index(self) -> dict[str, int]:
        """Option id to its position."""
        return {option.id: position for position, option in enumerate(self.options)}


@dataclass(frozen=True)
class Visits:
    """What the effects of visits depend on, whatever is believed.

    Arrays end in the shape V of the visits. It is broadcast against N draws: (P, 1) for P visits
    under each draw, (1,) for one, and (..., N) for visits under one draw each.
    """

    site: Indices
    examples: Floats
    before: Floats
    """Examples of earlier visits to the same option."""
    total: Floats
    """Examples of all earlier visits."""
    fresh: Flags
    """The model was never trained before, so there is nothing to average with."""
    records: Floats
    own: Floats
    """(D, 1, V): 1 for the field of the visit, 0 for the others."""
    frequent: Floats
    """(L, V): learning rate of each label, relative to that of an average one, less 1."""
    forgets: Floats
    """(L, V): how fast the labels of the visit's own field fade."""
    fades: NDArray[np.float32]
    """(D, L, V): how fast other fields fade; 0 in the visit's own."""

    @staticmethod
    def joined(parts: Sequence[Visits]) -> Visits:
        """All these visits along the last axis of V."""
        fields = Visits.__dataclass_fields__
        arrays = {name: [getattr(one, name) for one in parts] for name in fields}
        return Visits(**{name: np.concatenate(each, axis=-1) for name, each in arrays.items()})

    def at(self, where: Indices) -> Visits:
        """The visits at these positions of the last axis of V, in their shape."""
        fields = self.__dataclass_fields__
        return Visits(*(getattr(self, name).take(where, axis=-1) for name in fields))


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
    """How much a label needs examples of its own, in [0, 1]; 0 means any example teaches all
    labels."""
    averaged: Floats
    """Share of a visit's change undone by averaging with the arriving model, in [0, 1)."""
    ceiling: Floats
    """(N, O)."""
    teaches: Floats
    """(N, D, O)."""
    level: Floats
    """(N', S): quality of an option's data, in [0, 1]; near 0 if it teaches nothing."""
    row: Indices
    """(N,): each set's row of `level`."""

    @cached_property
    def fades(self) -> Floats:
        """(N,): rate of forgetting per example."""
        rates: Floats = self.fading / self.tau
        return rates

    @cached_property
    def covers(self) -> Floats:
        """(D, O, N): `teaches`, in the order in which skills are gone through."""
        return np.ascontiguousarray(self.teaches.transpose(1, 2, 0))

    @cached_property
    def single(self) -> Draws:
        """Likewise in single precision: half the data, exact to seven digits."""
        fields = {name: getattr(self, name).astype(np.float32) for name in _PARAMETERS}
        return Draws(**fields, row=self.row)

    def level_at(self, site: Indices) -> Floats:
        """The level of each visit's option, its shape broadcast against (N,)."""
        found: Floats = self.level[self.row, site]
        return found

    def take(self, rows: Indices) -> Draws:
        """These sets, in this order, any number of times. Levels, of many sites, are shared."""
        taken = {name: getattr(self, name)[rows] for name in _PARAMETERS if name != "level"}
        return Draws(**taken, level=self.level, row=self.row[rows])

    @staticmethod
    def joined(parts: Sequence[Draws]) -> Draws:
        """All these sets, each of which has a row of levels."""
        fields = {
            name: np.concatenate([getattr(one, name) for one in parts]) for name in _PARAMETERS
        }
        return Draws(**fields, row=np.arange(sum(map(len, parts))))

    def __len__(self) -> int:
        return len(self.tau)


_PARAMETERS = tuple(name for name in Draws.__dataclass_fields__ if name != "row")


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


@dataclass(frozen=True)
class Effects:
    """The effects of visits on any model. C is the shape of the visits, broadcast against the
    draws."""

    own: Floats
    """(D, 1, V): 1 for the field of the visit, 0 for the others."""
    level: Floats
    decay: Floats
    """(L, C): the level towards which a visit moves the skills in its field, and the share of the
    gap that it leaves."""
    share: Floats
    """Share of the change that remains after averaging with the arriving model, broadcast to C."""
    left: NDArray[np.float32]
    """(D, L, C): share of skills in other fields that remains after fading and averaging; 1 in the
    visit's own."""

    def of(self, row: int) -> Effects:
        """The effects of one of P visits, (P, 1), under N draws."""
        share = self.share if self.share.ndim < self.decay.ndim - 1 else self.share[row]
        own, left = self.own[:, :, row], self.left[:, :, row]
        return Effects(own, self.level[:, row], self.decay[:, row], share, left)

    def on(self, skills: Floats) -> Floats:
        """Skills (D, L, C) after each visit; before, they are broadcast to that."""
        own = (skills * self.own).sum(axis=0)
        learnt = self.level + (own - self.level) * self.decay
        return np.where(self.own > 0.0, own + self.share * (learnt - own), skills * self.left)

    def factors(self) -> tuple[Floats, Floats]:
        """The effects as factors on skills and additions to them, both (D, L, C): quicker for
        consecutive visits."""
        moved = self.share * (1.0 - self.decay)
        return self.left - self.own * moved, self.own * (self.level * moved)


def visits_to(
    known: Setting,
    site: Indices,
    examples: Floats,
    *,
    before: Floats,
    total: Floats,
    exposure: Floats,
    fresh: Flags,
    kind: type[np.floating[Any]] = np.float64,
) -> Visits:
    """Visits of any shape V to models that have seen `exposure` examples of each label in each
    field, (D, L, V), for draws of the precision `kind`."""
    settled = ((exposure + _UNSETTLED) / _SETTLED).astype(kind, copy=False)
    settled **= -_SETTLES
    np.minimum(settled, _FASTEST, out=settled)
    own = known.own.take(site, axis=-1).astype(kind, copy=False)
    forgets = (settled * own).sum(axis=0) * known.seldom.take(site, axis=-1)
    return Visits(
        site=site,
        examples=examples.astype(kind, copy=False),
        before=before.astype(kind, copy=False),
        total=total.astype(kind, copy=False),
        fresh=fresh,
        records=known.records[site].astype(kind, copy=False),
        own=own,
        frequent=(known.pace.take(site, axis=-1) - 1.0).astype(kind, copy=False),
        forgets=forgets.astype(kind, copy=False),
        fades=(settled * known.others.take(site, axis=-1)).astype(np.float32),
    )


def after_visit(draws: Draws, skills: Floats, visits: Visits) -> Floats:
    """Skills (D, L, C) after each visit; before, they are broadcast to that."""
    return effects(draws, visits).on(skills)


def effects(draws: Draws, visits: Visits) -> Effects:
    """The effects of visits; they depend on what a model has seen, not on what it can do."""
    fading = draws.fades * visits.examples
    share = 1.0 - draws.averaged
    if visits.fresh.any():
        share = np.where(visits.fresh, np.ones_like(share), share)
    growth = visits.frequent * draws.labelled
    growth += 1.0
    growth /= draws.tau
    growth *= _worth(draws, visits)
    speed = visits.forgets * fading
    speed += growth
    growth *= draws.level_at(visits.site)
    growth /= np.maximum(speed, _LEAST)
    np.minimum(speed, _ENDLESS, out=speed)
    decay = np.exp(np.negative(speed, out=speed), out=speed)
    left = visits.fades * -fading.astype(np.float32, copy=False)
    np.exp(left, out=left)  # In single precision: several times as fast, exact to seven digits.
    left -= 1.0
    left *= share.astype(np.float32, copy=False)
    left += 1.0
    return Effects(visits.own, growth, decay, share, left)


def _worth(draws: Draws, visits: Visits) -> Floats:
    """(C): effective number of examples of a visit."""
    examples = np.maximum(visits.examples, _LEAST)
    horizon = visits.records * draws.repeats
    warmed = examples / (examples + draws.warm)
    ripened = np.exp(-np.minimum(visits.total / draws.ripe, _ENDLESS))
    asleep = draws.ripe * ripened * np.expm1(-examples / draws.ripe)
    again = horizon * np.exp(-visits.before / horizon) * np.expm1(-examples / horizon)
    worth: Floats = warmed * (-1.0 - asleep / examples) * again
    return worth


def whole_values(known: Setting, draws: Draws, skills: Floats) -> Floats:
    """Value (O, C) on every objective, the mean over its test items, with skills (D, L, C), the
    last axis of which is that of the draws, or broadcast against it."""
    floor, ceiling = _floors(known, draws).T, draws.ceiling.T
    missed = _missed(draws, skills)
    missed *= widened(known.shares.astype(missed.dtype)[..., None], skills.ndim)
    found: Floats = missed.sum(axis=1)
    found *= widened(floor - ceiling, found.ndim)
    found += widened(ceiling, found.ndim)
    return found


def values(known: Setting, draws: Draws, skills: Floats) -> Floats:
    """Value (N, O, L) on every label of every objective, with skills (N, D, L)."""
    covered = 1.0 - _missed(draws, skills.transpose(1, 2, 0)).transpose(2, 0, 1)
    floor = _floors(known, draws)[:, :, None]
    found: Floats = floor + (draws.ceiling[:, :, None] - floor) * covered
    return found


def _missed(draws: Draws, skills: Floats) -> Floats:
    """(O, L, C): the share of a label's items that no field covers."""
    covers = widened(draws.covers[:, :, None], skills.ndim + 1)
    missed: Floats = covers[0] * skills[0]
    np.subtract(1.0, missed, out=missed)
    for field in range(1, len(covers)):
        each = covers[field] * skills[field]
        np.subtract(1.0, each, out=each)
        missed *= each
    return missed


def widened(each: Floats, dimensions: int) -> Floats:
    """With as many dimensions, the new ones before the last, which is that of the draws."""
    return each.reshape(*each.shape[:-1], *[1] * (dimensions - each.ndim), each.shape[-1])


def anchored(whole: Floats, believed: Floats, off: Floats) -> Floats:
    """Values as expected to be measured, of any shape that all three have.

    `whole` is the model's prediction, `believed` its prediction for the checkpoint, and `off` the
    error of that. Most of the error persists while little changes, and fades as more does.
    """
    stays = _STAYS * np.exp(-np.abs(whole - believed) / _FORGOTTEN)
    return np.clip(whole + off * stays, 0.0, 1.0)


def _floors(known: Setting, draws: Draws) -> Floats:
    """(N, O): where a model distinguishes labels, it never guesses one it has forgotten."""
    return known.chance.astype(draws.labelled.dtype) * (1.0 - draws.labelled[:, None])


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
