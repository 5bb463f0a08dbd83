"""One route question as arrays: beliefs, costs of visits, permissions, and remaining limits.

*Effort* is the weighted sum of time and cost to be minimised, each as a share of what the job has
left, or of a reference if it has no limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from daitn.control.route.costs import Costs, costs
from daitn.control.route.posterior import Belief, Taught, believed, drawn, hopeful, taught
from daitn.control.route.priors import prior
from daitn.control.route.question import RouteQuestion, RouteStart, steps
from daitn.control.route.value_model import Draws, Setting, setting, whole_values
from daitn.objects.access import allows
from daitn.objects.identifiers import SiteId
from daitn.objects.intents import Budget
from daitn.objects.orders import allowed_examples
from daitn.topology.arrays import Flags, Floats, Indices

__all__ = [
    "PROGRESS",
    "BudgetLeft",
    "RouteTask",
    "Start",
    "brought",
    "jurisdiction_of",
    "most_taught",
    "route_task",
    "worn_out",
]

_DRAWS = 49
_HOPES = (1.0,)
"""Standard deviations of the hopeful draws, in which everything uncertain is better at once."""
_MOST_HOPE = 2.0
"""Standard deviations of the optimistic bound."""
_HOPE_WEIGHT = 0.02
"""Weight of a hopeful draw relative to an ordinary one: it decides if no ordinary draw reaches the
targets."""
_REFERENCE_S = 3600.0
_REFERENCE_USD = 10.0
"""Without limits, an hour counts as much as 10 USD."""
_LEAST_LEFT = 1e-6
"""Minimum seconds or USD left to take shares of."""
_CAUTION = 0.1
"""How far a robustness of 1 moves the mean towards the worst quarter of the draws."""
PROGRESS = 0.3
"""Standard errors by which the best value must be exceeded to count as progress."""
_ROUNDS, _LEAST_TRIES, _MOST_TRIES = 3, 8, 12
"""A job without a budget ends after `_ROUNDS` visits without progress per open option; the number
of options counts within the other two bounds."""
_HARM = 0.1
_HARM_COUNTS = 3
"""A site that increased the shortfall by this much is not retried before others had three turns."""
_SEED = 21


@dataclass(frozen=True)
class BudgetLeft:
    """What is left of the budget and of what the order allows; infinite without a limit."""

    seconds: float = np.inf
    cost_usd: float = np.inf
    examples: float = np.inf


@dataclass(frozen=True)
class Start:
    """A checkpoint under every draw."""

    model: Taught
    believed: Floats
    off: Floats
    """(N, O): see `value_model.anchored`."""
    measured: Floats
    """(O,): NaN if not measured."""
    allowed: Flags
    """(J,): jurisdictions it may travel to."""


@dataclass(frozen=True)
class RouteTask:
    """S options, O objectives, N draws, J jurisdictions."""

    known: Setting
    belief: Belief
    draws: Draws
    weight: Floats
    """(N,): of each draw."""
    errors: Floats
    """(O,): standard error of a measurement."""
    noise: Floats
    """(N, O): measurement error. The same at every visit, because the test items are."""
    starts: tuple[Start, ...]
    costs: Costs
    targets: Floats
    short_at_start: float
    """The latest model's shortfall from its targets, summed."""
    open: Flags
    """(S,): options that may be visited."""
    visits: Indices
    """(S,): visits of the job so far, including abandoned ones; one that clearly did harm counts
    `_HARM_COUNTS`."""
    gained: Floats
    """(S,): how much the last visit there reduced the shortfall; NaN without a visit."""
    stalled: int
    """Consecutive visits without measured progress."""
    undone: bool
    """Whether the last visits clearly increased the shortfall, or were to single-label data, where
    each undoes what others taught about the other labels."""
    jurisdiction: Indices
    release: Flags
    """(S, J): where a model that learned from each option may travel."""
    verified_in: Flags
    """(O, J): where each objective can be measured."""
    restricted: bool
    """Whether any release rule can exclude a model from anywhere."""
    limits: BudgetLeft
    budgeted: bool
    """Whether the job has a budget, beside what any order allows."""
    time_weight: float
    cost_weight: float
    miss: float
    """Effort assigned to a route that misses the targets."""
    caution: float

    def effort(self, seconds: Floats, cost_usd: Floats) -> Floats:
        """Weighted time and cost; never negative."""
        return self.time_weight * seconds + self.cost_weight * cost_usd

    def unbounded(self) -> RouteTask:
        """The same without limits and release rules."""
        return replace(self, limits=BudgetLeft(), budgeted=False, restricted=False)


def route_task(
    question: RouteQuestion, weights: Mapping[str, float], hope: float = 0.0
) -> RouteTask:
    """The question over all options of its topology; every objective must have a verifier.

    `weights` holds `time`, `cost`, `robustness` and `reach`; `hope` is that of `costs`.
    """
    topology, objectives = question.topology, question.intent.objective_names()
    known = setting(topology, objectives)
    targets = np.array([objective.at_least for objective in question.intent.objectives])
    start = brought(question, known)
    belief = believed(known, prior(known, question.experience), question.history, start)
    draws = _with_hope(belief)
    limits, errors = _left(question), _standard_errors(question)
    priced = costs(question, known.options, hope)
    places, allowed, release, verified = _places(question, known)
    starts = tuple(
        _start(known, draws, one, allowed[row], start)
        for row, one in enumerate(question.checkpoints)
    )
    first = np.where(np.isnan(starts[0].measured), known.chance, starts[0].measured)
    time_weight, cost_weight = _effort_weights(limits, weights)
    return RouteTask(
        known=known,
        belief=belief,
        draws=draws,
        weight=np.array([1.0] * _DRAWS + [_HOPE_WEIGHT] * len(_HOPES)),
        errors=errors,
        noise=_noise(errors, len(draws)),
        starts=starts,
        costs=priced,
        targets=targets,
        short_at_start=max(1e-6, float(np.maximum(0.0, targets - first).sum())),
        open=np.array([option.site not in question.excluded for option in known.options], bool),
        visits=_visits(question, known, targets, errors),
        gained=_gained(question, known, targets),
        stalled=_stalled(question, targets, errors),
        undone=_undone(question, known, targets, errors),
        jurisdiction=places,
        release=release,
        verified_in=verified,
        restricted=not (release.all() and allowed.all()),
        limits=limits,
        budgeted=question.intent.budget != Budget(),
        time_weight=time_weight,
        cost_weight=cost_weight,
        miss=_miss(known, priced, limits, time_weight, cost_weight) * max(0.1, weights["reach"]),
        caution=_CAUTION * weights["robustness"],
    )


def worn_out(task: RouteTask) -> bool:
    """Whether a job without a budget stopped progressing though each site was visited repeatedly.

    A job with a budget may use up what is left.
    """
    if task.budgeted:
        return False
    tries = _ROUNDS * max(_LEAST_TRIES, min(_MOST_TRIES, int(task.open.sum())))
    return task.stalled >= tries and bool((task.visits[task.open] > 0).all())


def most_taught(task: RouteTask) -> Floats:
    """(O,): optimistic bound on every objective's value, based on the descriptors."""
    known = task.known
    hope = hopeful(believed(known, task.belief.prior, (), None), _MOST_HOPE)
    skills = np.zeros((len(known.fields), len(known.labels), 1))
    for option in np.flatnonzero(task.open):
        field, learnable = known.field[option], known.rate[option] > 0.0
        level = hope.level[0, option] * np.where(learnable, 1.0, 1.0 - hope.labelled[0])
        skills[field, :, 0] = np.maximum(skills[field, :, 0], level)
    whole = whole_values(known, hope, skills)[:, 0]
    measured = np.array([start.measured for start in task.starts])
    best = np.nanmax(np.vstack([measured, known.chance[None]]), axis=0)
    bound: Floats = np.maximum(whole, best) + 2.0 * task.errors
    return bound


def jurisdiction_of(question: RouteQuestion, site: SiteId) -> str:
    """The jurisdiction of a site, from its descriptor."""
    state = question.topology.snapshot.sites.get(site)
    return state.descriptor.jurisdiction if state is not None else ""


def _standard_errors(question: RouteQuestion) -> Floats:
    """(O,): the last measured standard errors.

    Before any measurement, that of a share at the target over the test's items, and at least one
    item: a perfect score is not certainty.
    """
    last: dict[str, float] = {}
    for visit in question.history:
        last.update({name: error for name, error in visit.standard_error.items() if error > 0.0})
    errors = []
    for objective, name in zip(
        question.intent.objectives, question.intent.objective_names(), strict=True
    ):
        items = min((v.test.items for v in question.topology.verifiers.get(name, ())), default=1)
        at = objective.at_least
        least = 1.0 / max(1, items)
        usual = max(float(np.sqrt(at * (1.0 - at) / max(1, items))), least)
        errors.append(last.get(name, usual))
    return np.array(errors)


def _with_hope(belief: Belief) -> Draws:
    sets = (drawn(belief, _DRAWS), *(hopeful(belief, deviations) for deviations in _HOPES))
    return Draws.joined(sets)


def _noise(errors: Floats, count: int) -> Floats:
    rng = np.random.default_rng(_SEED)
    half = rng.standard_normal((count // 2 + 1, len(errors)))
    scores = np.vstack([half, -half])[:count]
    scores[0] = 0.0
    noise: Floats = scores * errors
    return noise


def brought(question: RouteQuestion, known: Setting) -> Floats | None:
    """(O,): measurements of the owner's weights before their first visit; none if fresh."""
    if not question.intent.model.start:
        return None
    first = question.history[0].before if question.history else question.checkpoints[-1].values
    return np.array([first.get(name, known.chance[o]) for o, name in enumerate(known.objectives)])


def _visits(question: RouteQuestion, known: Setting, targets: Floats, errors: Floats) -> Indices:
    column, names = known.index(), question.intent.objective_names()
    count = np.zeros(len(known.options), dtype=np.int64)
    for visit in question.history:
        if visit.option_id in column:
            harm = _short(visit.after, names, targets) - _short(visit.before, names, targets)
            harmful = not visit.round and harm > max(_HARM, 3.0 * float(errors.mean()))
            count[column[visit.option_id]] += _HARM_COUNTS if harmful else 1
    return count


def _gained(question: RouteQuestion, known: Setting, targets: Floats) -> Floats:
    column, names = known.index(), question.intent.objective_names()
    gained = np.full(len(known.options), np.nan)
    for visit in question.history:
        # A round's gain cannot be attributed to a single site.
        if visit.option_id in column and not visit.round:
            before, after = (_short(v, names, targets) for v in (visit.before, visit.after))
            gained[column[visit.option_id]] = before - after
    return gained


def _stalled(question: RouteQuestion, targets: Floats, errors: Floats) -> int:
    """Visits since the shortfall last shrank by more than part of the measurement error."""
    names = question.intent.objective_names()
    first = question.history[0].before if question.history else {}
    least, since = _short(first, names, targets) if first else np.inf, 0
    for visit in steps(question.history):
        short = _short(visit.after, names, targets)
        if short < least - PROGRESS * float(errors.mean()):
            least, since = short, 0
        else:
            since += 1
    return since


def _undone(question: RouteQuestion, known: Setting, targets: Floats, errors: Floats) -> bool:
    column, names = known.index(), question.intent.objective_names()
    latest = [visit for visit in steps(question.history)[-2:] if not visit.round]
    last = [column[v.option_id] for v in latest if v.option_id in column]
    if len(known.labels) > 1 and any((known.share[k] > 0.0).sum() == 1 for k in last):
        return True
    lost = [
        _short(visit.after, names, targets) - _short(visit.before, names, targets)
        for visit in latest
    ]
    return len(lost) == 2 and float(np.mean(lost)) > 2.0 * float(errors.mean())


def _short(measured: Mapping[str, float], names: Sequence[str], targets: Floats) -> float:
    values = np.array([measured.get(name, 0.0) for name in names])
    return float(np.maximum(0.0, targets - values).sum())


def _start(
    known: Setting, draws: Draws, one: RouteStart, allowed: Flags, brought: Floats | None
) -> Start:
    model = taught(known, draws, one.visits, brought)
    whole = whole_values(known, draws, model.grid).T
    measured = np.array([one.values.get(name, np.nan) for name in known.objectives])
    return Start(
        model=model,
        believed=whole,
        off=np.where(np.isnan(measured), 0.0, measured - whole),
        measured=measured,
        allowed=allowed,
    )


def _left(question: RouteQuestion) -> BudgetLeft:
    budget, spent = question.intent.budget, question.spent
    unlimited = BudgetLeft()
    return BudgetLeft(
        seconds=_minus(budget.duration_s, spent.duration_s, unlimited.seconds),
        cost_usd=_minus(budget.cost_usd, spent.cost_usd, unlimited.cost_usd),
        examples=_minus(allowed_examples(question.intent), spent.examples, unlimited.examples),
    )


def _minus(limit: float | None, spent: float, unlimited: float) -> float:
    return unlimited if limit is None else max(0.0, limit - spent)


def _effort_weights(limits: BudgetLeft, weights: Mapping[str, float]) -> tuple[float, float]:
    """Effort per second and per USD. Time always counts a little, so that no route is free."""
    limited_s = _LEAST_LEFT < limits.seconds < np.inf
    limited_usd = _LEAST_LEFT < limits.cost_usd < np.inf
    reference_s = limits.seconds if limited_s else _REFERENCE_S
    reference_usd = limits.cost_usd if limited_usd else _REFERENCE_USD
    return max(weights["time"], 1e-3) / reference_s, weights["cost"] / reference_usd


def _miss(
    known: Setting, priced: Costs, limits: BudgetLeft, time_weight: float, cost_weight: float
) -> float:
    """Effort of everything left, or of ten epochs at every option if there is no limit."""
    epoch_s = float((priced.example_s * known.records + priced.visit_s).sum())
    epoch_usd = float((priced.price_usd * known.records).sum())
    seconds = limits.seconds if np.isfinite(limits.seconds) else max(_REFERENCE_S, 10 * epoch_s)
    usd = limits.cost_usd if np.isfinite(limits.cost_usd) else 10 * epoch_usd
    return time_weight * seconds + cost_weight * usd


def _places(question: RouteQuestion, known: Setting) -> tuple[Indices, Flags, Flags, Flags]:
    """Jurisdiction of each option; release rules of starts and options; where verifiers are."""
    at = [jurisdiction_of(question, option.site) for option in known.options]
    verifiers = [
        {jurisdiction_of(question, choice.site) for choice in question.topology.verifiers[name]}
        for name in known.objectives
    ]
    names = sorted({*at, *(name for found in verifiers for name in found)})
    position = {name: column for column, name in enumerate(names)}
    allowed = [[allows(one.release_to, name) for name in names] for one in question.checkpoints]
    release = [
        [allows(option.dataset.policy.release_to, name) for name in names]
        for option in known.options
    ]
    return (
        np.array([position[place] for place in at], dtype=np.int64),
        np.array(allowed, dtype=bool).reshape(len(allowed), len(names)),
        np.array(release, dtype=bool).reshape(len(release), len(names)),
        np.array([[name in found for name in names] for found in verifiers], dtype=bool),
    )
