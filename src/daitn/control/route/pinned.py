"""Routes that the owner states: the next pinned visit, whatever is expected of it."""

from __future__ import annotations

from collections.abc import Sequence

from daitn.control.route.costs import costs
from daitn.control.route.plans import PlannedRoute, Travel
from daitn.control.route.question import RouteQuestion, narrowed
from daitn.objects.decisions import PlannedVisit, Route
from daitn.objects.identifiers import SiteId
from daitn.objects.intents import PinnedVisit
from daitn.topology.snapshot import DataOption

__all__ = ["pinned_route"]


def pinned_route(question: RouteQuestion) -> tuple[PlannedRoute, ...]:
    """What is left of the pinned route, from the latest model; empty at its end.

    The visits that made the latest checkpoint are those done. Empty as well where a pinned site
    is not (or no longer) among the options. The targets are not predicted: the owner wants to see.
    """
    start = question.checkpoints[0]
    left = question.intent.route[len(start.visits) :]
    options = [_option_at(question, pinned.site) for pinned in left]
    here = [option for option in options if option is not None]
    if not left or len(here) < len(left):
        return ()
    visits = _visits(question, left, here)
    travels, release_to = [], start.release_to
    for option in here:
        after = narrowed(release_to, option.dataset.policy.release_to)
        travels.append(Travel(option.site, release_to, after))
        release_to = after
    return (
        PlannedRoute(
            id=" > ".join(f"{visit.site}:{visit.examples}" for visit in visits),
            route=Route(start=start.model, visits=visits, reaches=False),
            seconds=sum(visit.expected_s for visit in visits),
            cost_usd=sum(visit.expected_cost_usd for visit in visits),
            examples=sum(visit.examples for visit in visits),
            closed=0.0,
            holds=0.0,
            travels=tuple(travels),
        ),
    )


def _option_at(question: RouteQuestion, site: SiteId) -> DataOption | None:
    """The first data set at the site; none where it may not be visited."""
    if site in question.excluded:
        return None
    return next((option for option in question.topology.options if option.site == site), None)


def _visits(
    question: RouteQuestion, left: Sequence[PinnedVisit], options: Sequence[DataOption]
) -> tuple[PlannedVisit, ...]:
    known = costs(question, options)
    visits = []
    for k, (pinned, option) in enumerate(zip(left, options, strict=True)):
        moved_s = known.start_s[0, k] if k == 0 else known.move_s[k - 1, k]
        trained_s = known.wait_s[k] + known.example_s[k] * pinned.examples
        visits.append(
            PlannedVisit(
                site=pinned.site,
                dataset=option.dataset.name,
                examples=pinned.examples,
                expected_s=float(moved_s + trained_s + known.verify_s),
                expected_cost_usd=float(known.price_usd[k] * pinned.examples),
                expected={},
                release_to=option.dataset.policy.release_to,
            )
        )
    return tuple(visits)
