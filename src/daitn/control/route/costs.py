"""The cost of a visit: seconds of transfer, waiting, training and verifying, and its price.

What this job measured comes first, then what earlier jobs taught, then defaults, each of which
states what it assumes. `hope` takes everything that this job has not measured to be so many
standard deviations quicker: 2 gives a bound that next to nothing is below. The visited site fetches
the model from the holder that is fastest for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean, median, median_low

import numpy as np

from daitn.control.route.priors import guessed
from daitn.control.route.question import PastVisit, RouteQuestion, RouteStart
from daitn.control.route.transfers import DEFAULT_SD, between_s, transfer_s
from daitn.objects.identifiers import SiteId
from daitn.topology.arrays import Floats, Indices
from daitn.topology.snapshot import DataOption

__all__ = [
    "NEVER_S",
    "USUAL_SPEED_FLOPS",
    "Costs",
    "by_site",
    "costs",
    "example_s",
    "overhead_s",
    "slower",
    "to_verifiers_s",
]

NEVER_S = 1e12
"""For an impossible move."""
USUAL_SPEED_FLOPS = 1e11
"""For a site of unknown speed: a laptop's processor. Rather too fast: the first visit corrects it,
while too slow a speed would end jobs with a deadline."""
_LEAST_SPEED_FLOPS = 1.0
"""A lower report counts as none."""
_LATEST = 5
"""Visits to a site of which the median tells its speed: one that was slow because its machine did
something else does not make the site slow, and a site that became slow is found to be."""
_QUEUED_VISIT_S = 30.0
"""Duration of a visit queued ahead of ours, before this job has measured its own. Rather long: half
of the recorded visits took less than 3 ms (wine) to 12 s (MedQuAD), all of small models."""


class Moves:
    """Seconds to move the model between sites.

    The source is the better of the site and the verifiers, which then hold the model too. Computed
    on demand: in a large network a decision needs few pairs.
    """

    def __init__(
        self, question: RouteQuestion, sites: Sequence[SiteId], size_bytes: int, hope: float
    ) -> None:
        self._question, self._sites, self._size_bytes = question, sites, size_bytes
        self._hope = hope
        self._known: dict[int, float] = {}

    def __call__(self, sources: Indices, targets: Indices) -> Floats:
        pairs = sources * len(self._sites) + targets
        different, where = np.unique(pairs, return_inverse=True)
        seconds = [self._between(pair) for pair in different.tolist()]
        found: Floats = np.array(seconds, dtype=np.float64)[where].reshape(pairs.shape)
        return found

    @cached_property
    def _from_verifiers_s(self) -> Floats:
        verifiers = sorted(frozenset[SiteId]().union(*_verifiers(self._question)))
        return _reached_s(self._question, verifiers, self._sites, self._size_bytes, self._hope)

    def _between(self, pair: int) -> float:
        """`pair`: position of the source, times the number of sites, and of the target."""
        if pair not in self._known:
            source, target = divmod(pair, len(self._sites))
            one, other = self._sites[source], self._sites[target]
            seconds = float(self._from_verifiers_s[target])
            if (other, one) not in self._question.cut_off:
                snapshot, now_s = self._question.topology.snapshot, self._question.now_s
                own_s = transfer_s(snapshot, (one,), other, self._size_bytes, now_s, self._hope)
                seconds = min(seconds, own_s)
            self._known[pair] = seconds
        return self._known[pair]


@dataclass(frozen=True)
class Costs:
    """Arrays over options S and checkpoints C."""

    between: Moves
    at: Indices
    """(S,): index of each option's site among those of `between`."""
    start_s: Floats
    """(C, S): from the holders of a checkpoint; a fresh model is made there, but measured before
    its first visit: from there to the verifiers."""
    wait_s: Floats
    example_s: Floats
    price_usd: Floats
    """(S,): of one example: for the data, and for the time of training on it."""
    computing_usd: Floats
    """(S,): the part for the time."""
    visit_s: Floats
    """(S,): fixed part of every visit: starting, loading, storing, and until the verifiers have
    fetched the model and measured it."""

    def move_s(self, option: Indices, to: Indices) -> Floats:
        """Seconds to move the model to another option's site."""
        return self.between(self.at[option], self.at[to])

    def stay_s(self, option: Indices, examples: Floats | float) -> Floats:
        """Seconds of visits, without the transfer."""
        fixed_s = self.wait_s[option] + self.visit_s[option]
        found: Floats = fixed_s + self.example_s[option] * examples
        return found


def costs(question: RouteQuestion, options: Sequence[DataOption], hope: float = 0.0) -> Costs:
    """The costs of visits to `options` as known at `question.now_s`."""
    taught = question.experience
    size = max((checkpoint.size_bytes for checkpoint in question.checkpoints), default=0)
    sites = sorted({option.site for option in options})
    position = {site: row for row, site in enumerate(sites)}
    at = np.array([position[option.site] for option in options], dtype=np.int64)
    measured_s = to_verifiers_s(question, sites, size, hope)
    start = np.array(
        [
            _fetch_s(question, start, sites, hope) if start.model else measured_s
            for start in question.checkpoints
        ]
    ).reshape(len(question.checkpoints), len(sites))
    usual_s = [visit.seconds for visit in question.history if visit.seconds > 0]
    each_s = (
        sum(usual_s) / len(usual_s) if usual_s else _QUEUED_VISIT_S * math.exp(-hope * DEFAULT_SD)
    )
    overheads, verify_s = overhead_s(question.history), question.verify_s
    fixed_s = guessed("measuring", taught, hope) if verify_s is None else verify_s
    fixed_s += overheads if overheads is not None else guessed("overhead", taught, hope)
    trained_s = example_s(
        question.flops_per_example, question.history, options, guessed("slower", taught, hope)
    )
    data_usd = np.array([option.dataset.price_usd_per_1k / 1000.0 for option in options])
    hour_usd = np.array([option.compute.price_usd_per_hour for option in options])
    computing_usd = trained_s * hour_usd / 3600.0
    return Costs(
        between=Moves(question, sites, size, hope),
        at=at,
        start_s=start[:, at],
        wait_s=np.array([option.queue * each_s for option in options]),
        example_s=trained_s,
        price_usd=data_usd + computing_usd,
        computing_usd=computing_usd,
        visit_s=fixed_s + measured_s[at],
    )


def overhead_s(history: Sequence[PastVisit]) -> float | None:
    """Mean seconds for starting a visit, loading and storing; none before any was measured."""
    overheads = [visit.overhead_s for visit in history if visit.overhead_s > 0]
    return sum(overheads) / len(overheads) if overheads else None


def _verifiers(question: RouteQuestion) -> frozenset[frozenset[SiteId]]:
    """The verifiers of each objective; once if several objectives have the same."""
    found = question.topology.verifiers.values()
    return frozenset(frozenset(unit.site for unit in units) for units in found if units)


def to_verifiers_s(
    question: RouteQuestion, sites: Sequence[SiteId], size_bytes: int, hope: float = 0.0
) -> Floats:
    """Seconds until a verifier of each objective has a model that was trained at each site."""
    units = _verifiers(question)
    if not units:
        return np.zeros(len(sites))
    everyone = sorted(frozenset[SiteId]().union(*units))
    snapshot, now_s = question.topology.snapshot, question.now_s
    seconds = between_s(snapshot, sites, everyone, size_bytes, now_s, hope)
    soonest = [seconds[:, [unit in found for unit in everyone]].min(axis=1) for found in units]
    slowest: Floats = np.max(soonest, axis=0)
    return slowest


def _fetch_s(
    question: RouteQuestion, start: RouteStart, sites: Sequence[SiteId], hope: float
) -> Floats:
    if not start.holders:
        return np.zeros(len(sites))
    return _reached_s(question, start.holders, sites, start.size_bytes, hope)


def _reached_s(
    question: RouteQuestion,
    holders: Sequence[SiteId],
    sites: Sequence[SiteId],
    size_bytes: int,
    hope: float,
) -> Floats:
    """Seconds until each site has the model, from the best reachable holder."""
    holders = tuple(dict.fromkeys(holders))
    snapshot, now_s = question.topology.snapshot, question.now_s
    seconds = between_s(snapshot, holders, sites, size_bytes, now_s, hope)
    if question.cut_off:
        cut_off = [[(site, one) in question.cut_off for site in sites] for one in holders]
        seconds[np.array(cut_off, bool)] = NEVER_S
    soonest: Floats = seconds.min(axis=0, initial=NEVER_S)
    return soonest


def _speed_flops(option: DataOption) -> float:
    stated = option.compute.speed_flops
    return stated if stated >= _LEAST_SPEED_FLOPS else USUAL_SPEED_FLOPS


def example_s(
    flops_per_example: float,
    history: Sequence[PastVisit],
    options: Sequence[DataOption],
    usually: float = 1.0,
) -> Floats:
    """Seconds of one training example at each option.

    From this job's latest visits to the site, if any; otherwise from the site's measured speed,
    times measured over computed seconds at a typical visited site, `usually` before any visit.
    """
    computed, measured = _example_s(flops_per_example, history, options)
    longer = _slower(computed, measured, options)
    factor = usually if longer is None else longer
    return np.array([measured.get(option.id, computed[option.id] * factor) for option in options])


def slower(
    flops_per_example: float, history: Sequence[PastVisit], options: Sequence[DataOption]
) -> float | None:
    """Measured over computed seconds at a typical visited site; none without a visit. Each site
    states both, so none decides for others."""
    return _slower(*_example_s(flops_per_example, history, options), options)


def _slower(
    computed: Mapping[str, float], measured: Mapping[str, float], options: Sequence[DataOption]
) -> float | None:
    visited = [option for option in options if option.id in measured]
    ratios = [math.log(measured[option.id] / computed[option.id]) for option in visited]
    of_sites = by_site(ratios, [option.site for option in visited]).values()
    return math.exp(median(map(mean, of_sites))) if of_sites else None


def by_site(values: Sequence[float], sites: Sequence[SiteId]) -> dict[SiteId, list[float]]:
    """A site has one voice, however many data sets it has."""
    found: dict[SiteId, list[float]] = {}
    for value, site in zip(values, sites, strict=True):
        found.setdefault(site, []).append(value)
    return found


def _example_s(
    flops_per_example: float, history: Sequence[PastVisit], options: Sequence[DataOption]
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of an example by option: by its site's speed, and as measured by this job."""
    computed = {option.id: flops_per_example / _speed_flops(option) for option in options}
    spent: dict[str, list[float]] = {}
    for visit in history:
        if visit.seconds > 0 and visit.examples > 0 and computed.get(visit.option_id, 0.0) > 0:
            spent.setdefault(visit.option_id, []).append(visit.seconds / visit.examples)
    return computed, {name: median_low(each[-_LATEST:]) for name, each in spent.items()}
