"""Metrics of a control centre."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from daitn.control.jobs.job import Job
from daitn.objects.errors import DaitnError
from daitn.objects.jobs import JobState
from daitn.tools.fabric.protocol import Handler
from daitn.tools.monitoring.metrics import (
    FAST_S,
    Histogram,
    Sample,
    counter,
    gauge,
    histogram,
)
from daitn.topology.snapshot import Drrt

__all__ = ["METRICS", "REFUSALS", "CenterMetrics", "jobs_measured", "topology_measured"]

_MOST_BUDGETS: Final = 1000
_DECISIONS: Final = ("assess", "route", "verifiers")

JOBS: Final = gauge("daitn_center_jobs", "Jobs by state, including ended ones.", "state")
OUTSTANDING: Final = gauge(
    "daitn_center_work_outstanding", "Pieces of work that sites have not reported yet."
)
DECISION: Final = histogram(
    "daitn_center_decision_duration_seconds",
    "Time that MTRCE takes to decide on a job's next step (`route`), T-FAM to assess an intent "
    "(`assess`), and the choice of verifiers (`verifiers`).",
    "kind",
)
REQUESTS: Final = counter(
    "daitn_center_requests_total",
    "Requests to the control centre by verb and outcome: `ok`, or the class of the error.",
    *("verb", "outcome"),
)
REFUSALS: Final = counter(
    "daitn_center_rate_refusals_total",
    "Requests refused because their member exceeded its rate.",
    "verb",
)
EPOCH: Final = gauge(
    "daitn_center_epoch",
    "Epoch of leadership among control centres that share a database; it rises when another one "
    "takes over. 0 means that it is alone.",
)
SITES: Final = gauge("daitn_center_sites", "Known sites: `alive`, or `lost`.", "state")
ROLES: Final = gauge("daitn_center_sites_alive", "Sites that are alive, by role.", "role")
LINKS: Final = gauge("daitn_center_links", "Measured links between sites.")
QUEUE: Final = gauge("daitn_center_site_queue", "Work waiting at all sites that are alive.")
DATASETS: Final = gauge("daitn_center_datasets", "Data sets of sites that are alive.")
BUDGET: Final = gauge(
    "daitn_center_privacy_visits_left",
    "Approximate number of visits left in the privacy budget of a data set (`site/name`), as "
    f"published by its site; for the {_MOST_BUDGETS} data sets with the least.",
    "dataset",
)
METRICS: Final = (
    *(JOBS, OUTSTANDING, DECISION, REQUESTS, REFUSALS, SITES, ROLES, LINKS, QUEUE, DATASETS, EPOCH),
    BUDGET,
)


class CenterMetrics:
    """The numbers of one control centre since it started."""

    def __init__(self) -> None:
        self.decisions = {kind: Histogram(FAST_S) for kind in _DECISIONS}
        self._requests: Counter[tuple[str, str]] = Counter()

    def counted(self, verb: str, handler: Handler) -> Handler:
        """The handler, with its outcomes counted."""

        async def handle(key: str, payload: bytes) -> bytes:
            outcome = "ok"
            try:
                return await handler(key, payload)
            except DaitnError as error:
                outcome = type(error).__name__
                raise
            except Exception:
                outcome = "internal"
                raise
            finally:
                self._requests[verb, outcome] += 1

        return handle

    def measured(self) -> Iterator[Sample]:
        """See `Measured`."""
        for kind, seconds in self.decisions.items():
            yield DECISION.at(seconds, kind)
        for request, count in sorted(self._requests.items()):
            yield REQUESTS.at(count, *request)


def jobs_measured(states: Mapping[JobState, int], unfinished: Iterable[Job]) -> Iterator[Sample]:
    """See `Measured`. `states`: number of jobs by state."""
    for state in JobState:
        yield JOBS.at(states.get(state, 0), state.value)
    yield OUTSTANDING.at(sum(len(job.outstanding) for job in unfinished))


def topology_measured(drrt: Drrt) -> Iterator[Sample]:
    """See `Measured`."""
    alive = [state for state in drrt.sites.values() if state.alive]
    roles = Counter(role.value for state in alive for role in state.descriptor.roles)
    yield SITES.at(len(alive), "alive")
    yield SITES.at(len(drrt.sites) - len(alive), "lost")
    yield from ROLES.by(roles)
    yield LINKS.at(sum(len(targets) for targets in drrt.links.values()))
    yield QUEUE.at(sum(state.load.queue.value for state in alive if state.load is not None))
    datasets = [data for state in alive for data in state.descriptor.datasets]
    yield DATASETS.at(len(datasets))
    budgets = sorted(
        (data.private_visits_left, data.site, data.name)
        for data in datasets
        if data.private_visits_left is not None
    )
    for left, site, name in budgets[:_MOST_BUDGETS]:
        yield BUDGET.at(left, f"{site}/{name}")
