"""A job as displayed to people and scripts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from immutables import Map

from daitn.control.jobs.job import Job
from daitn.control.jobs.resuming import refusal
from daitn.objects.errors import ErrorReport
from daitn.objects.identifiers import ObjectiveName, SiteId, VisitId
from daitn.objects.jobs import JobView, ObjectiveView
from daitn.objects.lineage import Origin
from daitn.objects.merging import Algorithm
from daitn.objects.messages import WorkStatus

__all__ = ["SILENT_S", "JobNews", "algorithm", "view"]

SILENT_S = 60.0
"""A site without news for this long is reported as silent."""


@dataclass(frozen=True)
class JobNews:
    """A site's latest status of its work."""

    status: WorkStatus
    silent_s: float
    """How long the status has been unchanged."""


def algorithm(sites: tuple[SiteId, ...]) -> str:
    """`cyclic` if the route returns to a site that it left, else `sequential`."""
    stays = [site for site, _ in itertools.groupby(sites)]
    return "sequential" if len(set(stays)) == len(stays) else "cyclic"


def view(job: Job, now_s: float, news: Mapping[VisitId, JobNews] = Map()) -> JobView:
    """The job at `now_s`, with available `news` of its outstanding work."""
    best = job.best
    ended_at_s = now_s if job.ended_at_s is None else job.ended_at_s
    return JobView(
        job=job.id,
        name=job.intent.name,
        owner=job.intent.owner,
        recipe=job.intent.model.recipe,
        config=job.intent.model.config,
        state=job.state,
        sentence=job.state.sentence,
        detail=_detail(job, news),
        algorithm=_algorithm(job),
        objectives=_objectives(job),
        route=tuple(job.made),
        planned=job.planned,
        working=tuple(sorted({o.site for o in job.outstanding.values()})),
        excluded=job.excluded,
        untrained={str(name): value for name, value in job.untrained.items()},
        seconds=ended_at_s - job.began_at_s,
        bytes_moved=_bytes_moved(job),
        cost_usd=job.spent_usd,
        examples=job.spent_examples,
        model=best.model if best else None,
        assessment=job.assessment,
        decision=job.decision,
        error=job.error,
        submitted_at_s=job.submitted_at_s,
        ended_at_s=job.ended_at_s,
        needs=job.needs,
        queued=_queued(job, news),
        silent=_silent(job, news),
        disagreements=tuple(job.disagreements),
        setbacks=tuple(job.setbacks.values()),
        not_resumed=_not_resumed(job),
    )


def _not_resumed(job: Job) -> ErrorReport | None:
    why = refusal(job) if job.state.final else None
    return ErrorReport.of(why) if why else None


def _algorithm(job: Job) -> str:
    """Its algorithms in order: `cyclic, then diloco`. If an algorithm was requested, the first
    visit, which makes the model, is not mentioned."""
    stated = job.intent.training.algorithm
    if stated not in (Algorithm.AUTO, Algorithm.SEQUENTIAL, Algorithm.ADAPTIVE):
        return str(stated)
    visits = algorithm(tuple(made.site for made in job.made if not made.round))
    ways = [visits if not made.round else str(made.algorithm) for made in job.made]
    return ", then ".join(way for way, _ in itertools.groupby(ways)) or visits


def _detail(job: Job, news: Mapping[VisitId, JobNews]) -> str:
    """Its current activity, with its queue positions and silent sites."""
    if job.state.final:
        return job.detail
    queued = _queued(job, news)
    silent = _silent(job, news)
    doing = f"queued ({queued})" if queued else job.detail
    return f"{doing}; nothing new from {silent}" if silent else doing


def _silent(job: Job, news: Mapping[VisitId, JobNews]) -> str:
    """Sites working for it that have long been silent."""
    return ", ".join(
        f"{site} for {latest.silent_s:.0f} s"
        for site, latest in _latest(job, news)
        if latest.silent_s >= SILENT_S and not latest.status.ahead
    )


def _queued(job: Job, news: Mapping[VisitId, JobNews]) -> str:
    """Its queue positions, if all of its work is queued."""
    ahead = [(site, latest.status.ahead) for site, latest in _latest(job, news)]
    if len(ahead) < len(job.outstanding) or not all(count for _, count in ahead):
        return ""
    return ", ".join(f"{_ordinal(count + 1)} at {site}" for site, count in ahead)


def _latest(job: Job, news: Mapping[VisitId, JobNews]) -> list[tuple[SiteId, JobNews]]:
    return [(o.site, news[visit]) for visit, o in job.outstanding.items() if visit in news]


def _ordinal(number: int) -> str:
    tens, ones = divmod(number % 100, 10)
    ending = "th" if tens == 1 else {1: "st", 2: "nd", 3: "rd"}.get(ones, "th")
    return f"{number}{ending}"


def _objectives(job: Job) -> tuple[ObjectiveView, ...]:
    shown = []
    for objective in job.intent.objectives:
        fact = job.verifications.get(ObjectiveName(objective.name))
        shown.append(
            ObjectiveView(
                name=objective.name,
                metric=objective.metric,
                topic=objective.topic,
                target=objective.at_least,
                reached=fact.value if fact else None,
                standard_error=fact.standard_error if fact else None,
                items=fact.items if fact else None,
                verifier=fact.site if fact else None,
            )
        )
    return tuple(shown)


def _bytes_moved(job: Job) -> int:
    """Bytes transferred to sites and verifiers, over all facts in the lineage."""
    facts = [entry.fact for entry in job.lineage]
    return sum(fact.bytes_in for fact in facts if not isinstance(fact, Origin))
