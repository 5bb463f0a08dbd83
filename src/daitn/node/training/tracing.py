"""The span of a piece of work, in the trace of its job."""

from __future__ import annotations

from daitn.node.training.metrics import KINDS
from daitn.objects.identifiers import SiteId
from daitn.objects.messages import VisitWork, Work
from daitn.tools.monitoring.tracing import Span, Tracer

__all__ = ["work_span"]


def work_span(tracer: Tracer, site: SiteId, work: Work) -> Span | None:
    """Begin the span of a piece of work; none if nothing is traced."""
    kind = KINDS[type(work)]
    order = "" if work.order is None else work.order.digest
    span = tracer.of_job(work.job, order, f"{kind} {site}")
    if span is None:
        return None
    span.attributes |= {
        "daitn.job.id": work.job,
        "daitn.visit.id": work.visit,
        "daitn.site": site,
        "daitn.work.kind": kind,
        "daitn.recipe": work.recipe,
    }
    if isinstance(work, VisitWork):
        span.attributes |= {"daitn.dataset": work.dataset, "daitn.examples": work.examples}
    return span
