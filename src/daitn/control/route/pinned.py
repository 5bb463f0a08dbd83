"""Pinned routes: the remainder, regardless of expectations."""

from __future__ import annotations

from daitn.control.route.plans import PlannedRoute, planned_routes
from daitn.control.route.question import RouteQuestion
from daitn.control.route.rollout import Plan, play
from daitn.control.route.task import RouteTask

__all__ = ["pinned_route"]


def pinned_route(question: RouteQuestion, task: RouteTask, luck: float) -> tuple[PlannedRoute, ...]:
    """The rest of the pinned route, from the latest model; empty at its end.

    If the owner insists, only its next stop: that it fits is enough to go on. `luck` is that of
    `planned_routes`.

    The visits that made the latest checkpoint are done. Also empty if a pinned site is not (or no
    longer) among the options. Expectations are reported but stop nothing: the owner wants to see it
    run. `task` must be unbounded, so that the whole route is judged.
    """
    left = question.intent.route[len(question.checkpoints[0].visits) :]
    left = left[:1] if question.insisted else left
    first = {option.site: k for k, option in reversed(list(enumerate(question.topology.options)))}
    stops = tuple(
        (first[pinned.site], pinned.examples)
        for pinned in left
        if pinned.site in first and pinned.site not in question.excluded
    )
    if not left or len(stops) < len(left):
        return ()
    return planned_routes(question, task, play(task, (Plan(0, stops),)), 1, luck, whole=True)
