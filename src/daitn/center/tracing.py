"""The spans of jobs at their control centre; those of sites are in the same traces."""

from __future__ import annotations

from daitn.control.jobs.job import Job
from daitn.objects.jobs import JobState
from daitn.tools.monitoring.tracing import Span, SpanKind, Tracer

__all__ = ["decision_span", "job_ended"]

_FAILED = frozenset({JobState.FAILED, JobState.INFEASIBLE})


def decision_span(tracer: Tracer, job: Job, name: str) -> Span | None:
    """Begin a decision on a job; none if nothing is traced."""
    span = tracer.of_job(job.id, _order(job), name, kind=SpanKind.INTERNAL)
    if span is not None:
        span.attributes["daitn.job.id"] = job.id
    return span


def job_ended(tracer: Tracer, job: Job) -> None:
    """The span of a whole job, at its end."""
    span = tracer.job(job.id, _order(job), job.submitted_at_s)
    if span is None:
        return
    span.attributes |= {
        "daitn.job.id": job.id,
        "daitn.job.state": job.state.value,
        "daitn.owner": job.intent.owner,
        "daitn.recipe": job.intent.model.recipe,
        "daitn.visits": len(job.made),
    }
    span.end(job.state.value if job.state in _FAILED else "", job.ended_at_s)


def _order(job: Job) -> str:
    return "" if job.order is None else job.order.digest
