"""One route question as arrays: what the search works on, and one visit applied to many states.

An *effort* is the weighted sum of time and cost that the search keeps least, each as a share of
what the job has left of it, or of a reference where it has no limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daitn.control.route.beliefs import believed, hopeful, skills_after
from daitn.control.route.costs import Costs, costs
from daitn.control.route.knowledge import Floats, Indices, Knowledge, anchored, prior
from daitn.control.route.question import Checkpoint, RouteQuestion
from daitn.objects.descriptors import ANY
from daitn.objects.identifiers import SiteId

__all__ = [
    "GRID",
    "Flags",
    "Limits",
    "Problem",
    "States",
    "jurisdiction_of",
    "problem",
    "standard_errors",
]

Flags = NDArray[np.bool_]

GRID = tuple(float(500 * 2**k) for k in range(8))
"""Examples of one visit: quanta of work from 500 to 64,000, each twice the one before."""
FINE_GRID = tuple(sorted({*GRID, *(1.5 * examples for examples in GRID[:-1])}))
"""What local improvement may choose from: the grid with a step between."""
_MARGIN_SIGMA = 1.0
"""Standard errors above the target that a route aims for: a true value there is measured to
reach the target in 84 of 100 measurements."""
_LEAST_GAIN_SIGMA = 0.25
"""Standard errors that a visit must be expected to gain on an objective that does not hold yet,
once `_PATIENCE` is used up. Less cannot be told from noise; where no visit offers it, the data is
exhausted."""
_PATIENCE = 4
"""Visits in a row without a new best value before expectations alone may end a job: while
measurements still improve, a model that says they cannot is wrong."""
_REFERENCE_S = 3600.0
_REFERENCE_USD = 10.0
"""Without limits an hour counts as much as 10 USD."""
_LEAST_LEFT = 1e-6
"""Seconds or USD of which shares can still be taken."""


@dataclass(frozen=True)
class Limits:
    """What is left of the budget; infinite where there is no limit."""

    seconds: float = np.inf
    cost_usd: float = np.inf
    examples: float = np.inf


@dataclass(frozen=True)
class States:
    """N models, each somewhere on a route. `at` is the option last visited, -1 at the start."""

    start: Indices
    skills: Floats
    expected: Floats
    seconds: Floats
    cost_usd: Floats
    examples: Floats
    at: Indices
    allowed: Flags
    """(N, J): jurisdictions that each may still travel to."""

    @classmethod
    def at_start(cls, skills: Floats, measured: Floats, allowed: Flags) -> States:
        """One state per checkpoint, with nothing spent."""
        count = len(skills)
        return cls(
            start=np.arange(count),
            skills=skills,
            expected=measured,
            seconds=np.zeros(count),
            cost_usd=np.zeros(count),
            examples=np.zeros(count),
            at=np.full(count, -1),
            allowed=allowed,
        )

    def take(self, rows: Indices | Flags) -> States:
        """Only these rows, in this order."""
        return States(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Problem:
    """S options, O objectives, C starts, J jurisdictions."""

    knowledge: Knowledge
    costs: Costs
    starts: States
    base: Floats
    """(C, O): what the knowledge model says of each start, before anchoring."""
    targets: Floats
    errors: Floats
    """(O,): standard error that a measurement of each objective is expected to have."""
    least_gain_sigma: float
    """Smallest expected gain that is worth a visit, in standard errors."""
    open: Flags
    """(S,): options that may be visited."""
    jurisdiction: Indices
    release: Flags
    """(S, J): where a model may travel that learned from each option."""
    verified_in: Flags
    """(O, J): where each objective can be measured."""
    limits: Limits
    time_weight: float
    cost_weight: float
    grid: tuple[float, ...] = GRID
    fine_grid: tuple[float, ...] = FINE_GRID

    @property
    def aims(self) -> Floats:
        """(O,): targets with a margin for the noise of measuring."""
        return np.minimum(self.targets + _MARGIN_SIGMA * self.errors, 1.0)

    @property
    def least_gain(self) -> Floats:
        """(O,): the smallest expected gain that is worth a visit, in the objective's unit."""
        return self.least_gain_sigma * self.errors

    def effort(self, seconds: Floats, cost_usd: Floats) -> Floats:
        """Weighted time and cost; never negative."""
        return self.time_weight * seconds + self.cost_weight * cost_usd

    def shortfall(self, expected: Floats) -> Floats:
        """(N, O): how far the expected values miss the aims."""
        missing: Floats = np.maximum(0.0, self.aims - expected)
        return missing

    def visitable(self, states: States, option: Indices) -> Flags:
        """Whether each state may go to its option at all, and be verified afterwards."""
        rows = np.arange(len(option))
        travels = states.allowed[rows, self.jurisdiction[option]]
        after = states.allowed & self.release[option]
        measured: Flags = np.any(after[:, None, :] & self.verified_in[None], axis=2)
        allowed: Flags = self.open[option] & travels & np.all(measured, axis=1)
        return allowed

    def visit(self, states: States, option: Indices, examples: Floats) -> States:
        """Every state after a visit to its option with its number of examples, and measured."""
        skills = self.knowledge.after(states.skills, option, examples)
        start = states.start
        expected = anchored(
            self.starts.expected[start],
            self.base[start],
            self.knowledge.values(skills),
            self.knowledge.prior.chance,
        )
        costs = self.costs
        moved = np.where(
            states.at < 0, costs.start_s[start, option], costs.move_s[states.at, option]
        )
        seconds = moved + self.stay_s(option, examples)
        return States(
            start=start,
            skills=skills,
            expected=expected,
            seconds=states.seconds + seconds,
            cost_usd=states.cost_usd + costs.price_usd[option] * examples,
            examples=states.examples + examples,
            at=option,
            allowed=states.allowed & self.release[option],
        )

    def stay_s(self, option: Indices, examples: Floats) -> Floats:
        """Seconds of a visit without its transfer."""
        trained = self.costs.example_s[option] * examples
        stay: Floats = self.costs.wait_s[option] + trained + self.costs.verify_s
        return stay

    def within(self, states: States) -> Flags:
        """Which states keep to the budget."""
        limits = self.limits
        kept: Flags = (
            (states.seconds <= limits.seconds)
            & (states.cost_usd <= limits.cost_usd)
            & (states.examples <= limits.examples)
        )
        return kept


def problem(
    question: RouteQuestion,
    weights: Mapping[str, float],
    only: tuple[int, ...],
    hope: float = 0.0,
) -> Problem:
    """The question over the topology's options at positions `only`.

    `weights` holds `time` and `cost`. Every objective must have a verifier. With `hope` nothing
    that was measured counts, and what data teaches is taken better by so many standard deviations.
    """
    intent, topology = question.intent, question.topology
    belief = prior(topology, intent.objective_names(), only=only)
    knowledge = hopeful(belief, hope) if hope else believed(belief, question.history)
    options = belief.options
    places, allowed, release, verified = _places(question, only)
    skills = np.array([skills_after(knowledge, start.visits) for start in question.checkpoints])
    base = knowledge.values(skills)
    measured = _measured(question.checkpoints, belief.objectives, belief.chance)
    limits = _left(question)
    time_weight, cost_weight = _effort_weights(limits, weights)
    return Problem(
        knowledge=knowledge,
        costs=costs(question, options),
        starts=States.at_start(skills, measured, allowed),
        base=base,
        targets=np.array([objective.at_least for objective in intent.objectives]),
        errors=standard_errors(question),
        least_gain_sigma=0.0 if _patient(question) else _LEAST_GAIN_SIGMA,
        open=np.array([option.site not in question.excluded for option in options], dtype=bool),
        jurisdiction=places,
        release=release,
        verified_in=verified,
        limits=limits,
        time_weight=time_weight,
        cost_weight=cost_weight,
    )


def _patient(question: RouteQuestion) -> bool:
    """Whether one of the last visits brought an objective below its target to a new best."""
    best: dict[str, float] = {}
    stalled = 0
    for visit in question.history:
        wanted = [o for o in question.intent.objectives if best.get(o.name, 0.0) < o.at_least]
        known = {**visit.before, **best}
        news = [o for o in wanted if visit.after.get(o.name, 0.0) > known.get(o.name, 0.0)]
        stalled = 0 if news else stalled + 1
        for name, value in visit.after.items():
            best[name] = max(known.get(name, 0.0), value)
    return stalled < _PATIENCE


def jurisdiction_of(question: RouteQuestion, site: SiteId) -> str:
    """The law that a site is under, as its node says."""
    state = question.topology.snapshot.sites.get(site)
    return state.descriptor.jurisdiction if state is not None else ""


def standard_errors(question: RouteQuestion) -> Floats:
    """(O,): as last measured; before that, of a share at the target over the test's items."""
    last: dict[str, float] = {}
    for visit in question.history:
        last.update({name: error for name, error in visit.standard_error.items() if error > 0.0})
    errors = []
    for objective, name in zip(
        question.intent.objectives, question.intent.objective_names(), strict=True
    ):
        items = min((v.test.items for v in question.topology.verifiers.get(name, ())), default=1)
        at = objective.at_least
        errors.append(last.get(name, float(np.sqrt(at * (1.0 - at) / max(1, items)))))
    return np.array(errors)


def _measured(
    checkpoints: tuple[Checkpoint, ...], objectives: tuple[str, ...], chance: Floats
) -> Floats:
    return np.array(
        [
            [start.values.get(name, float(chance[o])) for o, name in enumerate(objectives)]
            for start in checkpoints
        ]
    )


def _left(question: RouteQuestion) -> Limits:
    budget, spent = question.intent.budget, question.spent
    unlimited = Limits()
    return Limits(
        seconds=_minus(budget.duration_s, spent.duration_s, unlimited.seconds),
        cost_usd=_minus(budget.cost_usd, spent.cost_usd, unlimited.cost_usd),
        examples=_minus(budget.examples, spent.examples, unlimited.examples),
    )


def _minus(limit: float | None, spent: float, unlimited: float) -> float:
    return unlimited if limit is None else max(0.0, limit - spent)


def _effort_weights(limits: Limits, weights: Mapping[str, float]) -> tuple[float, float]:
    """Effort per second and per USD. Time always counts a little, so that no route is free."""
    limited_s = _LEAST_LEFT < limits.seconds < np.inf
    limited_usd = _LEAST_LEFT < limits.cost_usd < np.inf
    reference_s = limits.seconds if limited_s else _REFERENCE_S
    reference_usd = limits.cost_usd if limited_usd else _REFERENCE_USD
    return max(weights["time"], 1e-3) / reference_s, weights["cost"] / reference_usd


def _places(question: RouteQuestion, only: tuple[int, ...]) -> tuple[Indices, Flags, Flags, Flags]:
    """Jurisdiction of each option; release rules of starts and options; where verifiers are."""
    topology = question.topology
    options = [topology.options[position] for position in only]
    at = [jurisdiction_of(question, option.site) for option in options]
    verifiers = [
        {jurisdiction_of(question, choice.site) for choice in topology.verifiers[name]}
        for name in question.intent.objective_names()
    ]
    names = sorted({*at, *(name for found in verifiers for name in found)})
    allowed = [_permits(start.release_to, names) for start in question.checkpoints]
    release = [_permits(option.dataset.policy.release_to, names) for option in options]
    return (
        np.array([names.index(place) for place in at], dtype=np.int64),
        np.array(allowed, dtype=bool).reshape(len(allowed), len(names)),
        np.array(release, dtype=bool).reshape(len(release), len(names)),
        np.array([[name in found for name in names] for found in verifiers], dtype=bool),
    )


def _permits(release_to: tuple[str, ...], names: list[str]) -> list[bool]:
    return [ANY in release_to or name in release_to for name in names]
