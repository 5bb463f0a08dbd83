"""A planner that takes no time, in the place of MTRCE, whose search takes half of a run's.

It sends a model to whoever it has visited least, for as long as there is time. What a job does with
its decisions is real, and so are rounds. Some runs take the real planner (`run.py`).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from unittest import mock

import numpy as np

from daitn.center import executor as executor_module
from daitn.center import experience as experience_module
from daitn.control.route.engine import Mtrce, Planning
from daitn.control.route.question import RouteQuestion
from daitn.objects.access import allows, narrowed
from daitn.objects.decisions import Assessment, Decision, PlannedVisit, Route
from daitn.objects.intents import TrainingIntent
from daitn.topology.snapshot import DataOption, MsDrrt

__all__ = ["hasty"]

_EXAMPLES = 1200
_VISITS = 14
"""Of a job."""


def _planned(engine: Mtrce, question: RouteQuestion) -> Planning:
    decision = Decision(
        policy="hasty", chosen=None, ranking=(), rejections=(),
        snapshot_version=question.snapshot_version, at_s=question.now_s,
    )  # fmt: skip
    route = _route(question)
    return Planning(route, decision, None, 1.0 if route else np.inf)


def _route(question: RouteQuestion) -> Route | None:
    intent, topology = question.intent, question.topology
    names = intent.objective_names()
    if question.holds or not all(map(topology.verifiers.get, names)):
        return None
    visits = Counter(visit.option_id for visit in question.history)
    limit_s = intent.budget.duration_s
    late = limit_s is not None and question.spent.duration_s + 10.0 > limit_s
    start = question.checkpoints[0]
    free = [option for option in topology.options if _may_go(question, option)]
    if late or not free or sum(visits.values()) >= _VISITS:
        return None
    option = min(free, key=lambda one: (visits[one.id], one.site != question.here, one.id))
    stop = PlannedVisit(
        site=option.site,
        dataset=option.dataset.name,
        examples=min(_EXAMPLES, option.dataset.samples),
        expected_s=3.0,
        expected_cost_usd=option.dataset.price_usd_per_1k * _EXAMPLES / 1000,
        expected={},
        release_to=option.dataset.policy.release_to,
    )
    return Route(start=start.model, visits=(stop,), reaches=True, chance=0.5)


def _may_go(question: RouteQuestion, option: DataOption) -> bool:
    start = question.checkpoints[0]
    place = question.topology.snapshot.sites[option.site].descriptor.jurisdiction
    within = narrowed(start.release_to, option.dataset.policy.release_to)
    return (
        option.site not in question.excluded
        and option.site not in question.later
        and option.id not in question.busy
        and allows(within, place)
    )


def _assess(question: RouteQuestion, cut: Callable[[TrainingIntent], MsDrrt]) -> Assessment:
    feasible = _route(question) is not None
    return Assessment(
        feasible=feasible,
        reasons=() if feasible else ("there is no site to go to",),
        rejections=question.topology.rejections,
        relaxations=(),
        snapshot_version=question.snapshot_version,
    )


@contextlib.contextmanager
def hasty() -> Iterator[None]:
    """Plan like this."""
    with (
        mock.patch.object(Mtrce, "planned", _planned),
        mock.patch.object(Mtrce, "why_none", return_value="the plan is at its end"),
        mock.patch.object(executor_module, "assess", _assess),
        mock.patch.object(experience_module, "lessons", return_value=None),
    ):
        yield
