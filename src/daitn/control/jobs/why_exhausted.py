"""Why a job ended short of its targets: what it reached and tried, and what would help."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping

from immutables import Map

from daitn.control.jobs.job import Job
from daitn.control.route.task import PROGRESS
from daitn.objects.decisions import Decision
from daitn.objects.identifiers import ObjectiveName, SiteId
from daitn.objects.intents import Objective
from daitn.objects.text import counted, figure, some
from daitn.topology.snapshot import MsDrrt

__all__ = ["larger_budget", "limits", "unvisited", "why_exhausted"]

_SHOWN = 5
"""Sites named in a sentence."""
_MOST_UNVISITED = 20
"""Sites kept in an event."""
_STUCK_AFTER = 6
"""Visits without measured progress after which more of the same does not help."""
_USED_UP = 0.9
"""Share of a limit that counts as used up, so that a larger limit would help."""


def why_exhausted(
    job: Job, now_s: float, why: str = "", unvisited: Mapping[SiteId, str] = Map()
) -> str:
    """Sentences for the owner of a job that is exhausted at `now_s`.

    `why`: what the caller knows about the end, for instance the best result that the route engine
    still expected; `unvisited`: sites with data that the model did not visit, and why.
    """
    sentences = (
        _cause(job, why),
        _stuck(job),
        *(_reached(job, objective) for objective in job.intent.objectives),
        _visited(job),
        _left_out(job),
        _named("not asked to measure any more", _contradicted(job)),
        _named("not visited", unvisited),
        _help(job, now_s, unvisited),
    )
    return "; ".join(sentence for sentence in sentences if sentence)


def unvisited(job: Job, topology: MsDrrt, decision: Decision) -> dict[SiteId, str]:
    """Sites with data that the model did not visit, and why; eligible sites come first.

    `decision` is the one that found no route.

    For a pinned route, the sites on it that cannot be visited.
    """
    if job.intent.route:
        pinned = (r for r in topology.rejections if r.filter == "pinned")
        return {SiteId(r.candidate): r.reason for r in pinned}
    known = {made.site for made in job.made} | set(job.excluded)
    found = dict.fromkeys((option.site for option in topology.options), _kept_out(decision))
    for rejection in topology.rejections:
        site, slash, _ = rejection.candidate.partition("/")
        if slash:
            found.setdefault(SiteId(site), rejection.reason)
    shown = [site for site in found if site not in known][:_MOST_UNVISITED]
    return {site: found[site] for site in shown}


def _kept_out(decision: Decision) -> str:
    """Why no site with eligible data is visited any more."""
    limits = sorted({r.field for r in decision.rejections if r.field.startswith("budget.")})
    if limits:
        return f"no visit to it fits what is left of {', '.join(limits)}"
    if any(r.filter == "release" for r in decision.rejections):
        return "the rules of data owners keep the model from it"
    return "no gain is expected of it"


def _contradicted(job: Job) -> dict[SiteId, str]:
    return {one.site: str(one) for one in job.disagreements if one.site in job.barred}


def _since_progress(job: Job) -> int:
    """Visits since the shortfall from the targets last shrank by more than chance."""
    errors = [error for one in job.checkpoints for error in one.standard_error.values()]
    least_step = PROGRESS * sum(errors) / max(1, len(errors))
    least, since = math.inf, 0
    for checkpoint in job.checkpoints:
        short = job.shortfall(checkpoint)
        if short < least - least_step:
            least, since = short, 0
        else:
            since += 1
    return since


def _stuck(job: Job) -> str:
    since = _since_progress(job)
    return (
        f"none of the last {since} visits came nearer to the targets"
        if since >= _STUCK_AFTER
        else ""
    )


def _cause(job: Job, why: str) -> str:
    route, made = job.intent.route, len(job.latest.visits) if job.latest else 0
    if why:
        return why
    if route and made >= len(route):
        return "the stated route is complete"
    if route:
        return f"the rest of the route is not possible{_refusals(job)}"
    if job.error is not None and job.excluded:
        return f"no site is left to try; the last failure: {job.error.problem}"
    return "no further visit is expected to bring the targets nearer within the budget"


def _refusals(job: Job) -> str:
    """What prevents the pinned route from continuing."""
    next_stops = {stop.site for stop in job.intent.route}
    left_out = [f"{site} is left out" for site in job.excluded if site in next_stops]
    found = [f"it {r.reason}" for r in job.decision.rejections] if job.decision else []
    reasons = [*left_out, *found]
    return f": {', '.join(reasons)}" if reasons else ""


def _reached(job: Job, objective: Objective) -> str:
    best = job.best
    value = best.values.get(ObjectiveName(objective.name)) if best else None
    if value is None:
        return f"{objective.name} was never measured, its target is {objective.at_least:g}"
    if value >= objective.at_least:
        return f"{objective.name} holds: {value:.3f} of {objective.at_least:g}"
    return f"{objective.name} is missed: {value:.3f} of {objective.at_least:g} at best"


def _visited(job: Job) -> str:
    if not job.made:
        return "no site was visited"
    times = Counter(made.site for made in job.made)
    each = some(f"{site} {count}x" for site, count in times.most_common())
    return f"visited: {each} ({counted(job.spent_examples, 'example')})"


def _left_out(job: Job) -> str:
    return _named("left out", {s: job.problems.get(s, "it failed") for s in job.excluded})


def _named(what: str, sites: Mapping[SiteId, str]) -> str:
    if not sites:
        return ""
    return f"{what}: {some(f'{site} ({why})' for site, why in sites.items())}"


def _help(job: Job, now_s: float, unvisited: Mapping[SiteId, str]) -> str:
    helps = [
        *([] if _stuck(job) else larger_budget(job, now_s)),
        *(f"a repair of {site}" for site in job.excluded[:_SHOWN]),
    ]
    missed = [objective for objective in job.intent.objectives if not _holds(job, objective)]
    if not helps and missed:
        names = ", ".join(objective.name for objective in missed)
        topics = ", ".join(dict.fromkeys(objective.topic for objective in missed))
        helps = [f"more data on {topics}", f"a lower at_least of {names}"]
        if unvisited:
            helps.insert(0, "an intent that lets the model visit more sites")
    return f"what would help: {', or '.join(helps)}" if helps else ""


def _holds(job: Job, objective: Objective) -> bool:
    value = job.best.values.get(ObjectiveName(objective.name)) if job.best else None
    return value is not None and value >= objective.at_least


def _parts(job: Job, field: str) -> int:
    """The number of the job's models over which a limit is summed."""
    return 1 if field == "budget.duration_s" else job.intent.training.travelling


def larger_budget(job: Job, now_s: float) -> Iterator[str]:
    """Limits that excluded a route, with the value that admits it, and limits nearly used up."""
    least: dict[str, float] = {}
    for rejection in job.decision.rejections if job.decision else ():
        if rejection.field.startswith("budget.") and rejection.relax_to:
            needed = float(rejection.relax_to) * _parts(job, rejection.field)
            least[rejection.field] = min(needed, least.get(rejection.field, needed))
    yield from (f"{field} of {needed:g}" for field, needed in sorted(least.items()))
    for name, used, limit in limits(job, now_s):
        if used >= _USED_UP * limit and f"budget.{name}" not in least:
            yield f"a larger budget.{name} ({figure(used)} of {figure(limit)} are used)"


def limits(job: Job, now_s: float) -> Iterator[tuple[str, float, float]]:
    """Each limit of the budget by its name, with the amount used at `now_s`, and the limit."""
    spent = {
        "examples": job.spent_examples,
        "cost_usd": job.spent_usd,
        "duration_s": now_s - job.began_at_s,
    }
    for name, used in spent.items():
        limit = getattr(job.budget, name)
        if limit is not None:
            yield name, used, limit
