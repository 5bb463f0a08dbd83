"""What a visit takes: seconds of transfer, waiting, training and verifying, and its price.

What this job measured comes first, then what earlier jobs taught, then defaults, each of which
states what it assumes. `hope` takes everything that this job has not measured to be so many
standard deviations quicker: 2 gives a bound that next to nothing is below. The visited site fetches
the model from the holder that is fastest for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from daitn.control.route.priors import guessed
from daitn.control.route.question import PastVisit, RouteQuestion, RouteStart
from daitn.control.route.value_model import Floats, Indices
from daitn.objects.identifiers import SiteId
from daitn.topology.snapshot import DataOption, Drrt

__all__ = [
    "NEVER_S",
    "USUAL_SPEED_FLOPS",
    "Costs",
    "costs",
    "example_s",
    "overhead_s",
    "slower",
    "transfer_s",
]

_DEFAULT_THROUGHPUT_BPS = 5e6
"""Of a link without measurements: 40 Mbit/s, a modest office uplink."""
_DEFAULT_SD = 1.5
"""Of the logarithm of such a link's speed, or of a queued visit's duration: with two of these, from
a slow line to a gigabit network."""
_DEFAULT_RTT_S = 0.05
"""Across a country; it counts little beside the transfer."""
_STALE_AFTER_S = 600.0
"""A transfer is assumed to take half as long again with a reading of this age, and twice as long
from twice the age on, as over a link without measurements: an old link may have got worse."""
_STALE_MOST = 2.0
NEVER_S = 1e12
"""For an impossible move."""
USUAL_SPEED_FLOPS = 1e11
"""For a site of unknown speed: a laptop's processor. Rather too fast: the first visit corrects it,
while too slow a speed would end jobs with a deadline."""
_LEAST_SPEED_FLOPS = 1.0
"""A lower report counts as none."""
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
        found = question.topology.verifiers.values()
        self._verifiers = sorted({choice.site for choices in found for choice in choices})
        self._known: dict[tuple[int, int], float] = {}

    def __call__(self, sources: Indices, targets: Indices) -> Floats:
        pairs = sources * len(self._sites) + targets
        different, where = np.unique(pairs, return_inverse=True)
        seconds = [self._between(*divmod(int(pair), len(self._sites))) for pair in different]
        found: Floats = np.array(seconds, dtype=np.float64)[where].reshape(pairs.shape)
        return found

    def _between(self, source: int, target: int) -> float:
        if (source, target) not in self._known:
            holders = (self._sites[source], *self._verifiers)
            self._known[source, target] = _reached_s(
                self._question, holders, self._sites[target], self._size_bytes, self._hope
            )
        return self._known[source, target]


@dataclass(frozen=True)
class Costs:
    """Arrays over options S and checkpoints C."""

    between: Moves
    at: Indices
    """(S,): index of each option's site among those of `between`."""
    start_s: Floats
    """(C, S): from the holders of a checkpoint; a fresh model is made there, but measured
    before its first visit: from there to the verifiers."""
    wait_s: Floats
    example_s: Floats
    price_usd: Floats
    """(S,): of one example: of the data, and of the time in which it is trained on."""
    computing_usd: Floats
    """(S,): the part of that which is for the time."""
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
    units = _verifiers(question)
    to_verifiers_s = np.array(
        [_to_verifiers_s(question, units, site, size, hope) for site in sites]
    )
    start = np.array(
        [
            [_fetch_s(question, start, site, hope) for site in sites]
            if start.model
            else to_verifiers_s
            for start in question.checkpoints
        ]
    ).reshape(len(question.checkpoints), len(sites))
    usual_s = [visit.seconds for visit in question.history if visit.seconds > 0]
    each_s = sum(usual_s) / len(usual_s) if usual_s else _hoped(_QUEUED_VISIT_S, hope)
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
        visit_s=fixed_s + to_verifiers_s[at],
    )


def overhead_s(history: Sequence[PastVisit]) -> float | None:
    """Mean seconds for starting a visit, loading and storing; none before any was measured."""
    told = [visit.overhead_s for visit in history if visit.overhead_s > 0]
    return sum(told) / len(told) if told else None


def _hoped(usual: float, hope: float) -> float:
    return usual * math.exp(-hope * _DEFAULT_SD)


def transfer_s(
    snapshot: Drrt,
    holders: Sequence[SiteId],
    target: SiteId,
    size_bytes: int,
    now_s: float,
    hope: float = 0.0,
) -> float:
    """Seconds until `target` has the model, from the best of `holders`; 0 if it already has it."""
    if not holders or target in holders:
        return 0.0
    return min(_link_s(snapshot, holder, target, size_bytes, now_s, hope) for holder in holders)


def _verifiers(question: RouteQuestion) -> frozenset[frozenset[SiteId]]:
    """The verifiers of each objective; once where several objectives have the same."""
    found = question.topology.verifiers.values()
    return frozenset(frozenset(unit.site for unit in units) for units in found if units)


def _to_verifiers_s(
    question: RouteQuestion,
    units: frozenset[frozenset[SiteId]],
    site: SiteId,
    size_bytes: int,
    hope: float,
) -> float:
    """Seconds until a verifier of each objective has a model that was trained at the site."""
    snapshot, now_s = question.topology.snapshot, question.now_s
    seconds = {
        unit: transfer_s(snapshot, (site,), unit, size_bytes, now_s, hope)
        for unit in frozenset[SiteId]().union(*units)
    }
    return max((min(seconds[unit] for unit in sites) for sites in units), default=0.0)


def _fetch_s(question: RouteQuestion, start: RouteStart, site: SiteId, hope: float) -> float:
    if not start.holders:
        return 0.0
    return _reached_s(question, start.holders, site, start.size_bytes, hope)


def _reached_s(
    question: RouteQuestion, holders: Sequence[SiteId], site: SiteId, size_bytes: int, hope: float
) -> float:
    """Seconds until the site has the model, from the best holder it can reach."""
    reached = [one for one in holders if (site, one) not in question.cut_off]
    if not reached:
        return NEVER_S
    return transfer_s(question.topology.snapshot, reached, site, size_bytes, question.now_s, hope)


def _link_s(
    snapshot: Drrt, holder: SiteId, target: SiteId, size_bytes: int, now_s: float, hope: float
) -> float:
    rtt_s, throughput_bps = _DEFAULT_RTT_S, _DEFAULT_THROUGHPUT_BPS / _hoped(1.0, hope)
    age_s = _STALE_AFTER_S * _STALE_MOST
    for link in (snapshot.link(holder, target), snapshot.link(target, holder)):
        # The target fetches, so its own measurement comes last and wins.
        if link is not None and link.rtt_s is not None:
            rtt_s = link.rtt_s.value
        if link is not None and link.throughput_bps is not None:
            throughput_bps = link.throughput_bps.value
            age_s = link.throughput_bps.age_s(now_s)
    stale = 1.0 if hope else min(_STALE_MOST, 1.0 + 0.5 * age_s / _STALE_AFTER_S)
    return (rtt_s + size_bytes / max(throughput_bps, 1.0)) * stale


def _speed_flops(option: DataOption) -> float:
    told = option.compute.speed_flops
    return told if told >= _LEAST_SPEED_FLOPS else USUAL_SPEED_FLOPS


def example_s(
    flops_per_example: float,
    history: Sequence[PastVisit],
    options: Sequence[DataOption],
    usually: float = 1.0,
) -> Floats:
    """Seconds of one training example at each option.

    From this job's visits to the site, if any; otherwise from the site's measured speed, times the
    geometric mean of measured over computed seconds at visited sites, `usually` before any visit.
    """
    computed, measured = _example_s(flops_per_example, history, options)
    longer = _slower(computed, measured)
    factor = usually if longer is None else longer
    return np.array([measured.get(option.id, computed[option.id] * factor) for option in options])


def slower(
    flops_per_example: float, history: Sequence[PastVisit], options: Sequence[DataOption]
) -> float | None:
    """Geometric mean of measured over computed seconds at visited sites; none without a visit."""
    return _slower(*_example_s(flops_per_example, history, options))


def _slower(computed: Mapping[str, float], measured: Mapping[str, float]) -> float | None:
    ratios = [np.log(each / computed[name]) for name, each in measured.items()]
    return float(np.exp(np.mean(ratios))) if ratios else None


def _example_s(
    flops_per_example: float, history: Sequence[PastVisit], options: Sequence[DataOption]
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of an example by option: as its site's speed says, and as this job measured."""
    computed = {option.id: flops_per_example / _speed_flops(option) for option in options}
    spent: dict[str, tuple[float, int]] = {}
    for visit in history:
        if visit.seconds > 0 and visit.examples > 0 and computed.get(visit.option_id, 0.0) > 0:
            seconds, examples = spent.get(visit.option_id, (0.0, 0))
            spent[visit.option_id] = (seconds + visit.seconds, examples + visit.examples)
    return computed, {name: seconds / examples for name, (seconds, examples) in spent.items()}
