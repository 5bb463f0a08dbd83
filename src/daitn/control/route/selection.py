"""How a job trains next: a visit of its route, or a round of some algorithm.

With `algorithm: adaptive` the route and the rounds of each considered algorithm are candidates of
one utility, under one posterior: the effort until all targets hold, see `task`. A change in mid-job
needs a reason: it must promise to save `_EVIDENCE` of the effort, or the present way must have
brought nothing nearer. What was measured to stall is set aside, as long as something else is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from daitn.control.route.engine import Mtrce, Planning
from daitn.control.route.question import RouteQuestion, steps
from daitn.control.route.round_rollout import FEW, play_rounds
from daitn.control.route.rounds import NextRound, members, next_round
from daitn.control.route.task import PROGRESS, RouteTask
from daitn.objects.decisions import Compared, Decision, Round, Route
from daitn.objects.merging import Algorithm

__all__ = ["ExpectedRounds", "VisitOrRound", "expected_rounds", "next_step"]

_EVIDENCE = 0.5
"""Share of the effort that a change of the algorithm must promise to save. Large: consecutive
visits, with which every job begins, reach the targets more often (28 of 30 tables, the best rounds
22), and with 0.1 a job changed to rounds that stalled and missed targets that visits reach."""
_STALLED = 3
"""Visits, or rounds, without measured progress after which an algorithm is set aside."""
_LEAST_SITES = 2
_PARTS = (4.0, 1.0, 0.25, 0.0625)
"""Multiples of the intent's work per site and round: short rounds forget less between two merges,
long ones move fewer models."""
_AS_STATED = (1.0,)
"""The multiple for a named algorithm: the intent sets the work per round."""


@dataclass(frozen=True)
class VisitOrRound:
    """A visit, a round, or the reason for neither."""

    decision: Decision
    route: Route | None = None
    round: Round | None = None
    why: str = ""
    """If there is neither: the reason, if it is permanent."""
    waits: str = ""
    """If there is neither: the reason, if more sites would change it."""


@dataclass(frozen=True)
class ExpectedRounds:
    """Expected outcome of rounds of one algorithm."""

    found: NextRound
    rounds: int
    """Mean number until the targets hold, over the draws in which they do."""
    seconds: float
    chance: float


def expected_rounds(question: RouteQuestion, planning: Planning) -> ExpectedRounds | None:
    """The best rounds that an intent allows, from the latest model or one still to be made; none if
    there are none."""
    candidates = _round_candidates(question, planning)
    if not candidates:
        return None
    best = min(candidates, key=lambda one: one.effort)
    assert best.found is not None
    return ExpectedRounds(best.found, best.rounds, best.seconds, best.chance)


@dataclass(frozen=True)
class _Candidate:
    """One candidate: the route, or the rounds of an algorithm."""

    algorithm: Algorithm
    effort: float
    seconds: float
    chance: float
    found: NextRound | None = None
    rounds: int = 0


def next_step(question: RouteQuestion, engine: Mtrce | None = None) -> VisitOrRound:
    """The next visit or round. Pure, like the engine.

    A model that cannot be merged yet makes a visit, whatever the algorithm.
    """
    engine = engine or Mtrce()
    training = question.intent.training
    if question.merges and training.rule is not None:
        found = next_round(question, training.algorithm, training.rule)
        return VisitOrRound(found.decision, round=found.round, why=found.why, waits=found.waits)
    planning = engine.planned(question)
    candidates = [_route_candidate(planning), *_round_candidates(question, planning)]
    if len(candidates) == 1:
        return VisitOrRound(planning.decision, route=planning.route)
    candidates = _ranked(question, planning, candidates)
    algorithms = tuple(
        Compared(plan=str(one.algorithm), expected_s=one.seconds, chance=one.chance)
        for one in candidates
        if np.isfinite(one.effort)
    )
    best = candidates[0].found
    if best is None:
        decision = msgspec.structs.replace(planning.decision, algorithms=algorithms)
        return VisitOrRound(decision, route=planning.route)
    decision = msgspec.structs.replace(
        best.decision,
        algorithms=algorithms,
        beliefs=planning.decision.beliefs,
        experience=planning.decision.experience,
    )
    return VisitOrRound(decision, round=best.round)


def _route_candidate(planning: Planning) -> _Candidate:
    route, decision = planning.route, planning.decision
    chosen = next((one for one in decision.ranking if one.candidate == decision.chosen), None)
    if route is None or chosen is None or chosen.expected_s is None:
        return _Candidate(Algorithm.SEQUENTIAL, np.inf, 0.0, 0.0)
    return _Candidate(Algorithm.SEQUENTIAL, planning.effort, chosen.expected_s, route.chance)


def _round_candidates(question: RouteQuestion, planning: Planning) -> list[_Candidate]:
    """The possible rounds now, in the order in which algorithms are considered."""
    intent = question.intent
    rules = intent.training.rules
    if not rules or intent.route or not question.merges or planning.task is None:
        return []
    parts = _PARTS if intent.training.rule is None else _AS_STATED
    candidates: list[_Candidate] = []
    among = members(question)
    for algorithm, rule in rules.items():
        if algorithm in question.unfit:
            continue
        found = [next_round(question, algorithm, rule, part, among) for part in parts]
        sizes = [size for one in found if (size := _played(planning.task, algorithm, one, FEW))]
        best = min(sizes, key=lambda one: one.effort, default=None)
        if best is not None and best.found is not None:
            candidates.append(_played(planning.task, algorithm, best.found) or best)
    return candidates


def _played(
    task: RouteTask, algorithm: Algorithm, found: NextRound, most_draws: int | None = None
) -> _Candidate | None:
    if found.round is None or len(found.round.visits) < _LEAST_SITES:
        return None
    outcome = play_rounds(task, found, most_draws)
    if outcome is None:
        return None
    reached = outcome.rounds[outcome.rounds > 0]
    usual = round(float(reached.mean())) if len(reached) else 0
    return _Candidate(algorithm, outcome.effort, outcome.seconds, outcome.chance, found, usual)


def _ranked(
    question: RouteQuestion, planning: Planning, candidates: list[_Candidate]
) -> list[_Candidate]:
    """Best first: stalled ones last, and the current one before a slightly better one."""
    done = steps(question.history)
    present = done[-1].algorithm if done else Algorithm.SEQUENTIAL
    stalled = _stalled(question, planning)

    def effort(one: _Candidate) -> tuple[bool, float]:
        stays = (1.0 - _EVIDENCE) if one.algorithm is present else 1.0
        return one.algorithm in stalled or not np.isfinite(one.effort), one.effort * stays

    return sorted(candidates, key=effort)


def _stalled(question: RouteQuestion, planning: Planning) -> frozenset[Algorithm]:
    """Algorithms whose latest consecutive steps brought the targets no nearer than all before."""
    task = planning.task
    least_step = PROGRESS * float(task.errors.mean()) if task else 0.0
    done = steps(question.history)
    shortfalls = question.shortfalls[-len(done) - 1 :] if done else ()
    idle: dict[Algorithm, int] = {}
    least = shortfalls[0] if shortfalls else np.inf
    for step, short in zip(done, shortfalls[1:], strict=False):
        progressed = short < least - least_step
        least = min(least, short)
        idle[step.algorithm] = 0 if progressed else idle.get(step.algorithm, 0) + 1
    return frozenset(one for one, times in idle.items() if times >= _STALLED)
