"""What a model is expected to know after a sequence of visits.

State: for each data option s a *skill* K_s in [0, 1], the share of what s's data can teach that
the model has absorbed. A visit to s with n examples

    K_s <- 1 - (1 - K_s) exp(-n / tau_s)                                    absorbs
    K_j <- K_j (1 - phi (1 - sim(j, s)) (1 - exp(-n / tau_f)))   for j != s, fades

and the value expected on objective o, whose test set has label shares T_o and chance c_o, is

    c_o + (1 - c_o) sum_l T_o(l) [1 - prod_s (1 - a_os has_sl K_s)].

Why this shape:

- *Absorbing*: learning curves are fitted well by exponential and power laws (Viering and Loog,
  "The shape of learning curves", TPAMI 2023); the exponential composes over visits, so that two
  visits of n examples equal one of 2n.
- *Coverage*: the noisy-or over sites is monotone and submodular in the skills: a second site with
  the same labels adds less, one with other labels adds fully. Choosing a walk that maximises a
  submodular reward within a time budget is submodular orienteering (Chekuri and Pal, "A recursive
  greedy algorithm for walks in directed graphs", FOCS 2005).
- *Fading*: catastrophic forgetting (McCloskey and Cohen 1989; French 1999): training on other
  data undoes what was learned, the more so the more the data differs.

Assumptions (each a constant below): a data set's time constant grows with the square root of
its size; a label of which a site has `_HALF_KNOWN` examples can be half known from there;
similarity is the mean of topic-path similarity and histogram overlap. Measurements correct the
time constant, forgetting and every a_os (see `beliefs`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from daitn.objects.descriptors import TestSetDescriptor
from daitn.objects.identifiers import ObjectiveName
from daitn.topology.snapshot import DataOption, MsDrrt

__all__ = [
    "Floats",
    "Indices",
    "Knowledge",
    "Prior",
    "absorbed",
    "anchored",
    "ceiling",
    "covered",
    "prior",
    "shifted",
    "taught",
]

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

_TAU_EXAMPLES = 3_000.0
"""Examples after which a data set of `_TAU_SAMPLES` records is 63 % absorbed. A prior only: the
first measured gains move it by factors."""
_TAU_SAMPLES = 3_000.0
_TAU_BOUNDS = (0.3, 2.0)
"""Least and most of the size factor sqrt(samples / _TAU_SAMPLES)."""
_TAU_FADING_EXAMPLES = 3_000.0
_PHI = 0.3
"""Share of an entirely different skill that a long visit undoes."""
_HALF_KNOWN = 25.0
_ANY_LABEL = ""
_AFFINITY_BOUNDS = (0.02, 0.98)
"""Nothing is believed to be taught perfectly; what fits at all is never believed useless."""


@dataclass(frozen=True)
class Prior:
    """What descriptors alone say, before anything was measured. S options, O objectives, L labels.

    `fit` (S, O) is the prior of a_os; `has` (S, L); `shares` (O, L) sum to 1 per objective;
    `tau` (S,) in examples.
    """

    options: tuple[DataOption, ...]
    objectives: tuple[ObjectiveName, ...]
    chance: Floats
    shares: Floats
    fit: Floats
    has: Floats
    tau: Floats
    tau_fading: float = _TAU_FADING_EXAMPLES

    @cached_property
    def differs(self) -> Floats:
        """(S, S): 1 - sim."""
        return _differs(self.options)

    def index(self) -> dict[str, int]:
        """Option id to its column."""
        return {option.id: column for column, option in enumerate(self.options)}


@dataclass(frozen=True)
class Knowledge:
    """The model above with its parameters settled. `teaches` (S, O, L) is a_os has_sl."""

    prior: Prior
    teaches: Floats
    tau: Floats
    tau_fading: float
    fades: Floats
    """(S, S): row s holds phi (1 - sim(j, s)) for every j."""

    @classmethod
    def settled(
        cls, prior: Prior, *, log_tau: float, logit_phi: float, logit_affinity: Floats
    ) -> Knowledge:
        """The prior with its corrections: shifts of ln tau, of phi's and of each a_os's logit."""
        teaches, fades, scale = shifted(
            prior, np.array([log_tau]), np.array([logit_phi]), logit_affinity[None]
        )
        return cls(
            prior=prior,
            teaches=teaches[:, 0],
            tau=prior.tau * scale[0],
            tau_fading=prior.tau_fading * float(scale[0]),
            fades=fades[:, 0],
        )

    def after(self, skills: Floats, option: Indices, examples: Floats) -> Floats:
        """Skills (N, S) after each row's visit; `option` and `examples` are (N,)."""
        return absorbed(
            skills, option, examples, self.tau[option], self.fades[option], self.tau_fading
        )

    def values(self, skills: Floats) -> Floats:
        """Expected value (N, O) of every objective, before anchoring."""
        return covered(skills, self.teaches, self.prior.shares, self.prior.chance)


def absorbed(
    skills: Floats,
    option: Indices,
    examples: Floats,
    tau: Floats,
    fades: Floats,
    tau_fading: float | Floats,
) -> Floats:
    """One visit per row: skills (N, S), option, examples and tau (N,), fades (N, S)."""
    rows = np.arange(len(skills))
    kept = 1.0 - fades * (1.0 - np.exp(-examples / tau_fading))[:, None]
    new: Floats = skills * kept
    new[rows, option] = 1.0 - (1.0 - skills[rows, option]) * np.exp(-examples / tau)
    return new


def covered(skills: Floats, teaches: Floats, shares: Floats, chance: Floats) -> Floats:
    """The noisy-or coverage; `teaches` is (S, O, L), or (S, N, O, L) with one set per row."""
    missed = np.ones((len(skills), *shares.shape))
    for column in range(skills.shape[1]):
        missed *= 1.0 - skills[:, column, None, None] * teaches[column]
    known: Floats = 1.0 - (missed * shares).sum(axis=2)
    return chance + (1.0 - chance) * known


def anchored(measured: Floats, base: Floats, expected: Floats, chance: Floats) -> Floats:
    """Expected values as a change from what was measured where the model says `base`.

    Only the change is taken from the model, so that hoped-for gains never accumulate. A gain is
    scaled down to the room that is left above a value measured higher than the model says; a
    loss does not go below chance.
    """
    change = expected - base
    room = np.minimum(1.0, (1.0 - measured) / np.maximum(1.0 - base, 1e-9))
    gain = measured + np.where(change > 0.0, change * room, change)
    return np.clip(gain, np.minimum(measured, chance), 1.0)


def taught(prior: Prior, logit_affinity: Floats) -> Floats:
    """a_os has_sl as (S, N, O, L), for N sets (N, S, O) of shifts of each a_os's logit."""
    least, most = _AFFINITY_BOUNDS
    bounded = np.clip(prior.fit, least, most)
    logit = np.log(bounded / (1.0 - bounded))
    affinity = np.where(prior.fit > 0.0, 1.0 / (1.0 + np.exp(-(logit + logit_affinity))), 0.0)
    teaches: Floats = affinity.transpose(1, 0, 2)[..., None] * prior.has[:, None, None, :]
    return teaches


def ceiling(prior: Prior) -> Floats:
    """Value (O,) that descriptors promise with everything absorbed and nothing forgotten."""
    options, objectives = prior.fit.shape
    teaches = taught(prior, np.zeros((1, options, objectives)))[:, 0]
    values: Floats = covered(np.ones((1, options)), teaches, prior.shares, prior.chance)[0]
    return values


def shifted(
    prior: Prior, log_tau: Floats, logit_phi: Floats, logit_affinity: Floats
) -> tuple[Floats, Floats, Floats]:
    """For N parameter sets: teaches (S, N, O, L), fades (S, N, S), the factor on every tau (N,)."""
    phi = 1.0 / (1.0 + (1.0 - _PHI) / _PHI * np.exp(-logit_phi))
    fades = prior.differs[:, None, :] * phi[None, :, None]
    return taught(prior, logit_affinity), fades, np.exp(log_tau)


def prior(topology: MsDrrt, objectives: Sequence[ObjectiveName], *, only: Sequence[int]) -> Prior:
    """The prior over the options at positions `only` of the topology."""
    tests = [_pooled([choice.test for choice in topology.verifiers[o]]) for o in objectives]
    labels = sorted({label for _, histogram in tests for label in histogram})
    shares = np.array([[histogram.get(label, 0.0) for label in labels] for _, histogram in tests])
    options = tuple(topology.options[position] for position in only)
    samples = np.array([float(option.dataset.samples) for option in options])
    low, high = _TAU_BOUNDS
    return Prior(
        options=options,
        objectives=tuple(objectives),
        chance=np.array([chance for chance, _ in tests]),
        shares=shares,
        fit=np.array([[option.fit.get(o, 0.0) for o in objectives] for option in options]).reshape(
            len(options), len(objectives)
        ),
        has=_has(options, labels, shares),
        tau=_TAU_EXAMPLES * np.clip(np.sqrt(samples / _TAU_SAMPLES), low, high),
    )


def _pooled(tests: Sequence[TestSetDescriptor]) -> tuple[float, dict[str, float]]:
    """Chance and label shares over all verifiers of one objective."""
    counts: dict[str, float] = {}
    for test in tests:
        for label, count in (test.labels or {_ANY_LABEL: test.items}).items():
            counts[label] = counts.get(label, 0.0) + count
    total = sum(counts.values())
    if total <= 0:
        counts, total = {_ANY_LABEL: 1.0}, 1.0
    chance = max((test.chance for test in tests), default=0.0)
    return chance, {label: count / total for label, count in counts.items()}


def _has(options: Sequence[DataOption], labels: Sequence[str], shares: Floats) -> Floats:
    """(S, L): how well each label can be known from each option's amount of it.

    A data set without labels, or a test set without, is taken to have all of them evenly.
    """
    counts = np.zeros((len(options), len(labels)))
    for row, option in enumerate(options):
        histogram = option.dataset.labels
        for column, label in enumerate(labels):
            unknown = not histogram or label == _ANY_LABEL
            even = option.dataset.samples / max(1, len(labels))
            counts[row, column] = even if unknown else histogram.get(label, 0)
    counts *= np.array([option.dataset.quality for option in options])[:, None]
    has: Floats = counts / (counts + _HALF_KNOWN)
    return has


def _differs(options: Sequence[DataOption]) -> Floats:
    labels = sorted({label for option in options for label in option.dataset.labels})
    counts = np.array(
        [[float(option.dataset.labels.get(label, 0)) for label in labels] for option in options]
    ).reshape(len(options), len(labels))
    totals = counts.sum(axis=1, keepdims=True)
    histogram = np.where(totals > 0.0, counts / np.maximum(totals, 1.0), 1.0 / max(1, len(labels)))
    overlap = np.minimum(histogram[:, None, :], histogram[None, :, :]).sum(axis=2)
    kinds = sorted({option.dataset.topics for option in options})
    alike = np.array([[_same_topic(a, b) for b in kinds] for a in kinds])
    kind = [kinds.index(option.dataset.topics) for option in options]
    topics = alike[np.ix_(kind, kind)]
    differs: Floats = 1.0 - 0.5 * (overlap if labels else topics) - 0.5 * topics
    np.fill_diagonal(differs, 0.0)
    return np.clip(differs, 0.0, 1.0)


def _same_topic(one: Sequence[str], other: Sequence[str]) -> float:
    """Share of the longer path that the closest two topics have in common, in [0, 1]."""
    best = 0.0
    for left in one:
        for right in other:
            a, b = left.split("/"), right.split("/")
            common = 0
            while common < min(len(a), len(b)) and a[common] == b[common]:
                common += 1
            best = max(best, common / max(len(a), len(b)))
    return best
